//! Handwritten capture files for tests: byte by byte, according to the formats.

/// A pcap file of these packets: seconds, fraction, bytes.
pub(in crate::cli) fn pcap(big_endian: bool, nanoseconds: bool, link: u32, packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let u32 = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let u16 = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let magic = if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut file = [&u32(magic)[..], &u16(2), &u16(4), &[0; 8], &u32(65_535), &u32(link)].concat();
    for (seconds, fraction, data) in packets {
        let length = u32(data.len() as u32);
        file.extend([&u32(*seconds)[..], &u32(*fraction), &length, &length, data].concat());
    }
    file
}

/// A pcapng block: type and body, which is padded.
pub(in crate::cli) fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, &body, &length].concat()
}

pub(in crate::cli) fn section() -> Vec<u8> {
    block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat())
}

pub(in crate::cli) fn interface(name: &str, resolution: u8) -> Vec<u8> {
    let mut options = [&2_u16.to_le_bytes()[..], &(name.len() as u16).to_le_bytes(), name.as_bytes()].concat();
    options.resize(options.len().next_multiple_of(4), 0);
    options.extend([9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0]);
    block(1, &[&[1, 0, 0, 0, 0, 0, 0, 0][..], &options].concat())
}

pub(in crate::cli) fn packet(interface: u32, ticks: u64, data: &[u8], original: u32) -> Vec<u8> {
    let words = [interface, (ticks >> 32) as u32, ticks as u32, data.len() as u32, original];
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    body.extend(data);
    block(6, &body)
}
