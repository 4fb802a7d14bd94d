// The state of the fast path, see fast_path.h. SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef FAST_CONTROL_H
#define FAST_CONTROL_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// Userspace writes it. The program of redirects.c clears `may_send`.
struct fast_control {
    __u32 generation; // of the verdicts that count; 0: none counts
    __u32 max_frame;  // in bytes, with Ethernet header and VLAN tags
    __u32 may_send[2]; // whether frames may leave on this side
    __u32 mask[2];    // number of places of a region, less one: IPv4, IPv6
    __u64 secret;
    __u64 now;        // the time, for tests; 0: the time of the kernel's clock
    __u64 timeouts[2]; // without packets, in nanoseconds: of established TCP connections, of UDP
    __u32 is_used; // whether there may be a verdict of this generation
    __u32 unused;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct fast_control);
} fast_control SEC(".maps");

#endif
