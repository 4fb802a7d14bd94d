// Runs after the XDP program: drops and counts every frame that bypasses it, before the host's own stack receives the
// frame.
//
// No frame bypasses the program while it runs on every receive queue. But a driver may omit a queue (veth does not run
// an attached program on a queue that is added later), and an operator may detach the program. SPDX-License-Identifier:
// MIT OR Apache-2.0
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} dropped SEC(".maps");

SEC("tc")
int drop_ingress(struct __sk_buff *packet)
{
    __u32 zero = 0;
    __u64 *count = bpf_map_lookup_elem(&dropped, &zero);
    // GRO joins frames into one packet, which contains their number.
    if (count)
        *count += packet->gso_segs ? packet->gso_segs : 1;
    return TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
