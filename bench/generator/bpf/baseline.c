// The XDP baseline: redirects or drops every frame without reading it. No program can be faster.
// SPDX-License-Identifier: MIT OR Apache-2.0
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

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

char _license[] SEC("license") = "Dual MIT/GPL";
