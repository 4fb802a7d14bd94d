// The XDP program on each of the two interfaces: every frame goes to the AF_XDP socket of its receive queue.
//
// A queue without a socket drops, and counts what it dropped: while the dataplane starts, after it lost a socket, or
// if someone added a queue. There is no way past userspace, and nothing reaches the host's own stack.
//
// A driver may deliver a frame that is longer than its receive buffer in parts, each as a frame of its own. The first part
// fills a buffer, and so is too long for the filter; what follows it is dropped here, up to and with the part that is not
// too long. Userspace could not do that: it does not see the first part if a ring is full.
// SPDX-License-Identifier: MIT OR Apache-2.0
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#include <stddef.h>

// The AF_XDP socket of each receive queue. Sized by the loader to the interface's queues.
struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

// Set by the loader, see `Settings` in `src/program.rs`.
struct settings {
    // Whether frames are to carry the time at which they arrived: on interfaces with several queues, whose frames workers
    // see in an order of their own.
    __u32 stamp;
    // The longest frame of the interface in bytes, with Ethernet header and VLAN tags, if its driver may split longer
    // ones; 0 if it keeps all frames whole.
    __u32 split_above;
};

const volatile struct settings settings = {};

// Whether the last frame of each receive queue was too long. A queue is served by one core at a time.
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
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct counts);
} counts SEC(".maps");

SEC("xdp")
int knockplane(struct xdp_md *frame)
{
    __u32 zero = 0;
    struct counts *counted = bpf_map_lookup_elem(&counts, &zero);
    if (!counted)
        return XDP_DROP; // Cannot be: the map has this entry.
    counted->seen++;

    if (settings.split_above) {
        __u32 queue = frame->rx_queue_index;
        __u32 *split = bpf_map_lookup_elem(&splits, &queue);
        bool too_long = frame->data_end - frame->data > settings.split_above;

        if (!split || *split) {
            if (split)
                *split = too_long;
            counted->tails++;
            return XDP_DROP;
        }
        // Up to userspace, which counts it among the frames that are too long.
        if (too_long)
            *split = true;
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
    long verdict = bpf_redirect_map(&sockets, frame->rx_queue_index, XDP_DROP);

    if (verdict != XDP_REDIRECT)
        counted->unbound++;
    return verdict;
}

char _license[] SEC("license") = "Dual MIT/GPL";
