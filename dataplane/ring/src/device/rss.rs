//! The distribution of frames over the receive queues of a NIC. Source: Linux `include/uapi/linux/ethtool.h`.

use super::Device;

/// Receive side scaling of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The queue of each part of the hash's range.
    pub indirection: Vec<u32>,
    /// The hashed fields, by the names of `ethtool -N NAME rx-flow-hash`; only those that the driver reports.
    pub fields: Vec<HashFields>,
}

/// The hashed fields of one kind of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashFields {
    /// `tcp4`, `udp4`, `tcp6` or `udp6`.
    pub flow: &'static str,
    /// Whether the hash includes ports: then packets of one source to different ports arrive on different queues.
    pub ports: bool,
}

impl Device {
    /// The distribution of frames; `None` if the driver does not report it, such as a driver without hardware.
    pub fn rss(&self) -> Option<Rss> {
        const ETHTOOL_GRSSH: u32 = 0x46;
        // struct ethtool_rxfh: cmd, rss_context, indir_size, key_size, hfunc and reserved bytes, reserved, data.
        const HEADER: usize = 6;
        let mut sizes = [0_u32; HEADER];
        sizes[0] = ETHTOOL_GRSSH;
        self.ethtool(&mut sizes).ok()?;
        let (queues, key) = (sizes[2] as usize, sizes[3] as usize);
        let mut table = vec![0_u32; HEADER + queues + key.div_ceil(4)];
        table[0] = ETHTOOL_GRSSH;
        (table[2], table[3]) = (sizes[2], sizes[3]);
        self.ethtool(&mut table).ok()?;
        Some(Rss { indirection: table[HEADER..HEADER + queues].to_vec(), fields: self.hash_fields() })
    }

    fn hash_fields(&self) -> Vec<HashFields> {
        const ETHTOOL_GRXFH: u32 = 0x29;
        /// `RXH_L4_B_0_1` and `RXH_L4_B_2_3`: source and destination port.
        const PORTS: u64 = 1 << 6 | 1 << 7;
        /// `TCP_V4_FLOW` and so on.
        const FLOWS: [(u32, &str); 4] = [(1, "tcp4"), (2, "udp4"), (5, "tcp6"), (6, "udp6")];
        // struct ethtool_rxnfc: cmd, flow_type, then 64 bits of data; the rest is not used for this command.
        const WORDS: usize = 48;
        let fields = FLOWS.into_iter().filter_map(|(kind, flow)| {
            let mut request = [0_u32; WORDS];
            (request[0], request[1]) = (ETHTOOL_GRXFH, kind);
            self.ethtool(&mut request).ok()?;
            let [a, b] = [request[2], request[3]].map(u32::to_ne_bytes);
            let data = u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]);
            Some(HashFields { flow, ports: data & PORTS != 0 })
        });
        fields.collect()
    }
}
