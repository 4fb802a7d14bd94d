//! XDP in the driver, without reading frames: the upper bound of every filter in the driver.

use anyhow::Result;
use knockplane_ring::{Blind, Device};

use super::candidate::{Candidate, Losses, Role};
use super::lab::{Lab, checked};

pub(super) struct Xdp {
    /// Detached when dropped.
    _programs: Vec<Blind>,
}

impl Xdp {
    pub(super) fn start(lab: &Lab, role: Role) -> Result<Self> {
        // Frames redirected into a veth interface leave its other end by NAPI, which GRO turns on.
        checked(&lab.topology.server, "ethtool -K eth0 gro on")?;
        let programs = lab.topology.filter.within(|| {
            let devices = [Device::open("outside")?, Device::open("inside")?];
            Ok(match role {
                Role::Forward => {
                    vec![Blind::redirect(&devices[0], &devices[1])?, Blind::redirect(&devices[1], &devices[0])?]
                }
                Role::Drop => vec![Blind::drop(&devices[0])?, Blind::drop(&devices[1])?],
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
