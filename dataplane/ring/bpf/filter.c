// The XDP program on both interfaces: every frame goes to the AF_XDP socket of its receive queue.
//
// Exceptions: userspace may have written a verdict for the flow of a frame; then the frame leaves on the other side at
// once, see fast_path.h. Or no rule could accept the frame or learn from it; then it is dropped, see strangers.h.
//
// One program is attached twice. The kernel waits for a grace period of RCU, some 15 ms, when the first attachment of a
// program is made and when the last one ends. With two programs, a restart would wait twice as often.
//
// A queue without a socket drops and counts every frame: while the dataplane starts, after it has lost a socket, or
// after a queue was added. Every other frame goes to userspace. No frame reaches the host's own stack: ingress.c drops
// frames that bypass this program.
//
// A driver may deliver a frame that is longer than its receive buffer in parts, each as a separate frame. The first
// part fills a buffer, and is therefore longer than the longest permitted frame. The program drops the parts that
// follow it, up to and including the first one that is not too long. Userspace cannot do this: it does not receive the
// first part if a ring is full. SPDX-License-Identifier: MIT OR Apache-2.0
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#include <stddef.h>

#include "strangers.h"

// The AF_XDP socket of each receive queue: first those of outside, then those of inside. The loader sets the size.
struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

// Set by the loader, see `Settings` in `src/program.rs`.
struct settings {
    __u32 inside; // index of the inside interface; 0 if there is only one
    __u32 queues; // receive queues of each interface
    // Whether frames carry the time of their arrival. Interfaces with several queues need it, because workers do not
    // receive frames of different queues in the order of arrival.
    __u32 stamp;
    __u32 may_split; // whether one of the two drivers may deliver a frame in parts
    __u32 fast_path; // whether the maps of fast_path.h are in use
};

const volatile struct settings settings = {};

// The longest frame in bytes, with Ethernet header and VLAN tags: set by the loader, and when the MTU changes.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} longest SEC(".maps");

// State of a receive queue after its last frame.
enum split {
    WHOLE,       // it was a frame
    SPLIT,       // it was too long: the next one may be its rest
    NEVER_SPLIT, // nothing: the driver keeps frames whole. Set by the loader
};

// By receive queue, in the order of `sockets`. A queue is served by one core at a time.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} splits SEC(".maps");

// Counters by core. They show whether frames arrive on a worker's own core.
struct counts {
    __u64 seen;    // frames that arrived, except those that the fast path carried or dropped
    __u64 unbound; // of these, dropped because their queue has no socket
    __u64 unstamped; // of these, without the time that they should carry: the driver has no metadata
    __u64 tails; // of these, dropped because they may be the rest of a frame that was too long
    struct misses misses; // of these, those that went up while the fast path was on
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 2); // outside, inside
    __type(key, __u32);
    __type(value, struct counts);
} counts SEC(".maps");

SEC("xdp")
int knockplane(struct xdp_md *frame)
{
    __u32 side = frame->ingress_ifindex == settings.inside;
    struct counts *counted = bpf_map_lookup_elem(&counts, &side);
    if (!counted)
        return XDP_DROP; // Cannot be: the map has this entry.

    // A queue that was added later has no socket, and no place in the maps.
    __u32 queue = side * settings.queues + frame->rx_queue_index;
    if (frame->rx_queue_index >= settings.queues) {
        counted->seen++;
        counted->unbound++;
        return XDP_DROP;
    }

    if (settings.may_split) {
        __u32 first = 0;
        __u32 *split = bpf_map_lookup_elem(&splits, &queue);
        __u32 *limit = bpf_map_lookup_elem(&longest, &first);
        if (!split || !limit)
            return XDP_DROP; // Cannot be: the maps have these entries.
        if (*split != NEVER_SPLIT) {
            bool was_split = *split == SPLIT;
            *split = frame->data_end - frame->data > *limit ? SPLIT : WHOLE;
            if (was_split) {
                counted->seen++;
                counted->tails++;
                return XDP_DROP;
            }
            // A frame that is too long goes up to userspace, which counts it.
        }
    }

    if (settings.fast_path) {
        int verdict = shortcut(frame, side, frame->rx_queue_index, settings.queues, &counted->misses);
        if (verdict != XDP_PASS)
            return verdict;
    }
    counted->seen++;

    if (settings.stamp) {
        // The arrival time, CLOCK_MONOTONIC in nanoseconds, directly in front of the frame, where the socket's reader
        // expects it.
        __u64 *arrived = NULL;
        if (!bpf_xdp_adjust_meta(frame, -(int)sizeof(*arrived)))
            arrived = (void *)(long)frame->data_meta;
        if (arrived && (void *)(arrived + 1) <= (void *)(long)frame->data)
            *arrived = bpf_ktime_get_ns();
        else
            counted->unstamped++;
    }

    // The last argument is the verdict for a queue without a socket (kernel, AF_XDP documentation).
    long verdict = bpf_redirect_map(&sockets, queue, XDP_DROP);
    if (verdict != XDP_REDIRECT)
        counted->unbound++;
    return verdict;
}

char _license[] SEC("license") = "Dual MIT/GPL";
