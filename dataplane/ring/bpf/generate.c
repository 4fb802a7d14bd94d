// Sends every frame that a test run hands it out of the interface that the run names, see `live.rs`.
// SPDX-License-Identifier: MIT OR Apache-2.0
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int generate(struct xdp_md *frame)
{
    return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
