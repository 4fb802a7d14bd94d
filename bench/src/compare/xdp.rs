//! XDP in the driver, without reading frames: the upper bound of every filter in the driver.

use anyhow::Result;
use knockplane_generator::XdpBaseline;
use knockplane_ring::Device;

use super::candidate::{Candidate, Losses, Role};
use super::lab::{Lab, checked};

pub(super) struct Xdp {
    /// The programs on the interfaces. Their drop detaches them.
    _programs: Vec<XdpBaseline>,
}

impl Xdp {
    pub(super) fn start(lab: &Lab, role: Role) -> Result<Self> {
        // Frames redirected into a veth interface leave its other end by NAPI, which GRO turns on.
        checked(&lab.topology.server, "ethtool -K eth0 gro on")?;
        let programs = lab.topology.filter.within(|| {
            let devices = [Device::open("outside")?, Device::open("inside")?];
            Ok(match role {
                Role::Forward => {
                    vec![
                        XdpBaseline::redirect(&devices[0], &devices[1])?,
                        XdpBaseline::redirect(&devices[1], &devices[0])?,
                    ]
                }
                Role::Drop => vec![XdpBaseline::drop(&devices[0])?, XdpBaseline::drop(&devices[1])?],
            })
        })?;
        Ok(Xdp { _programs: programs })
    }
}

impl Candidate for Xdp {
    fn losses(&self) -> Result<Losses> {
        Ok(Losses::new())
    }
}
