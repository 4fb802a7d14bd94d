// The XDP baseline: redirects or drops every frame, without reading it, or after reading its headers. No program that
// does the same can be faster.
// SPDX-License-Identifier: MIT OR Apache-2.0
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

// The index of the target interface. The loader writes it.
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} devices SEC(".maps");

SEC("xdp")
int redirect(struct xdp_md *frame)
{
    return bpf_redirect_map(&devices, 0, XDP_DROP);
}

SEC("xdp")
int drop(struct xdp_md *frame)
{
    return XDP_DROP;
}

// Whether the frame is a complete IPv4 packet of TCP or UDP without options and fragments. The generator sends only such
// frames.
static __always_inline bool is_read(struct xdp_md *frame)
{
    const __u8 *data = (void *)(long)frame->data, *end = (void *)(long)frame->data_end;
    const __u8 *packet = data + 14, *transport = packet + 20;
    if (transport + 20 > end || data[12] != 0x08 || data[13] != 0x00)
        return false;
    __u32 length = (__u32)packet[2] << 8 | packet[3];
    if (packet[0] != 0x45 || length < 28 || packet + length > end || packet[6] & 0x3f || packet[7])
        return false;
    if (packet[9] == 6)
        return transport[12] >> 4 >= 5;
    return packet[9] == 17;
}

SEC("xdp")
int parse_redirect(struct xdp_md *frame)
{
    return is_read(frame) ? bpf_redirect_map(&devices, 0, XDP_DROP) : XDP_DROP;
}

SEC("xdp")
int parse_drop(struct xdp_md *frame)
{
    return is_read(frame) ? XDP_DROP : XDP_ABORTED;
}

char _license[] SEC("license") = "Dual MIT/GPL";
