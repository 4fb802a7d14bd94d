// The XDP program on both interfaces: every frame goes to the AF_XDP socket of its receive queue.
//
// It is one program, attached twice: attaching the first of its kind and detaching the last one makes the kernel wait for
// a grace period of RCU, some 15 ms, which a restart would take twice as often with two programs.
//
// A queue without a socket drops and counts every frame: while the dataplane starts, after it has lost a socket, or after a
// queue was added. Every other frame goes to userspace, and none reaches the host's own stack: ingress.c drops a frame that a
// driver lets past this program.
//
// A driver may deliver a frame that is longer than its receive buffer in parts, each as a frame of its own. The first part
// fills a buffer, and so is too long for the filter. The parts behind it are dropped here, up to and with the first one that is
// not too long. Userspace could not do that: it does not see the first part if a ring is full.
// SPDX-License-Identifier: MIT OR Apache-2.0
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#include <stddef.h>

// The AF_XDP socket of each receive queue: first those of outside, then those of inside. Sized by the loader.
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
    // Whether frames are to carry the time at which they arrived: for interfaces with several queues, whose frames
    // workers see in an order of their own.
    __u32 stamp;
    __u32 may_split; // whether one of the two drivers may deliver a frame in parts
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

// Counts by core: which cores receive tells a worker whether it has its own to itself.
struct counts {
    __u64 seen;    // frames that arrived
    __u64 unbound; // of these, dropped because their queue has no socket
    __u64 unstamped; // of these, without the time that they should carry: the driver has no metadata
    __u64 tails; // of these, dropped because they may be the rest of a frame that was too long
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
    counted->seen++;

    // A queue that was added has no socket, and no place in the maps.
    __u32 queue = side * settings.queues + frame->rx_queue_index;
    if (frame->rx_queue_index >= settings.queues) {
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
                counted->tails++;
                return XDP_DROP;
            }
            // A frame that is too long goes up to userspace, which counts it.
        }
    }

    if (settings.stamp) {
        // Right before the frame, where the socket's reader finds it: CLOCK_MONOTONIC in nanoseconds.
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
