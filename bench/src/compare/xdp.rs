//! XDP in the driver, without reading frames or after reading their headers: the upper bounds of every filter in the driver.

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
    pub(super) fn start(lab: &Lab, role: Role, parses: bool) -> Result<Self> {
        // Frames redirected into a veth interface leave its other end by NAPI, which GRO turns on.
        checked(&lab.topology.server, "ethtool -K eth0 gro on")?;
        let programs = lab.topology.filter.within(|| {
            let devices = [Device::open("outside")?, Device::open("inside")?];
            Ok(match role {
                Role::Forward => {
                    vec![
                        XdpBaseline::redirect(&devices[0], &devices[1], parses)?,
                        XdpBaseline::redirect(&devices[1], &devices[0], parses)?,
                    ]
                }
                Role::Drop => vec![XdpBaseline::drop(&devices[0], parses)?, XdpBaseline::drop(&devices[1], parses)?],
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
