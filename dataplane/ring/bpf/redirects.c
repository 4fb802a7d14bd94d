// Counts frames that were redirected by the fast path and lost, and forbids further ones if a target cannot take them.
//
// The kernel decides about a redirected frame after the XDP program has returned. A target that cannot take such frames
// (its link is down, or its driver has no function for them) loses them without any counter.
// SPDX-License-Identifier: MIT OR Apache-2.0
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <stdbool.h>

#include "fast_control.h"

// Parts of structures of the kernel. The loader finds the places of the fields.
struct bpf_prog_aux {
    __u32 id;
} __attribute__((preserve_access_index));

struct bpf_prog {
    struct bpf_prog_aux *aux;
} __attribute__((preserve_access_index));

struct net_device {
    int ifindex;
} __attribute__((preserve_access_index));

// Set by the loader.
struct settings {
    __u32 interfaces[2]; // indices: outside, inside
    __u32 program;       // id of the XDP program
};

const volatile struct settings settings = {};

struct losses {
    __u64 frames; // lost by the side of departure
    __u64 errors; // of these, frames that the target can never take
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, struct losses);
} losses SEC(".maps");

static __always_inline void lost(__u32 side, __u64 frames, bool is_error)
{
    struct losses *counted = bpf_map_lookup_elem(&losses, &side);
    if (!counted)
        return;
    __sync_fetch_and_add(&counted->frames, frames);
    if (!is_error)
        return;
    __sync_fetch_and_add(&counted->errors, frames);
    __u32 first = 0;
    struct fast_control *control = bpf_map_lookup_elem(&fast_control, &first);
    if (control)
        control->may_send[side & 1] = 0;
}

// The interface took some of the frames that were handed to it together. Without an error, its queue was full.
SEC("tp_btf/xdp_devmap_xmit")
int BPF_PROG(handed_over, const struct net_device *from, const struct net_device *to, int sent, int drops, int error)
{
    if (drops <= 0)
        return 0;
    __u32 arrival = from->ifindex, departure = to->ifindex;
    if (arrival == settings.interfaces[1] && departure == settings.interfaces[0])
        lost(0, drops, error < 0);
    else if (arrival == settings.interfaces[0] && departure == settings.interfaces[1])
        lost(1, drops, error < 0);
    return 0;
}

// A frame could not be handed over.
SEC("tp_btf/xdp_redirect_err")
int BPF_PROG(refused, const struct net_device *from, const struct bpf_prog *program, const void *target, int error,
             int map_type, __u32 map, __u32 index)
{
    if (map_type == BPF_MAP_TYPE_DEVMAP && program->aux->id == settings.program)
        lost(index & 1, 1, true);
    return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
