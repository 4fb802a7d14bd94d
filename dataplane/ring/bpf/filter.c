// The XDP program on each of the two interfaces: every frame goes to the AF_XDP socket of its receive queue.
//
// A queue without a socket drops, and counts what it dropped: while the dataplane starts, after it lost a socket, or
// if someone added a queue. There is no way past userspace, and nothing reaches the host's own stack.
// SPDX-License-Identifier: MIT OR Apache-2.0
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// The AF_XDP socket of each receive queue. Sized by the loader to the interface's queues.
struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

// Frames dropped because their queue has no socket.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} unbound SEC(".maps");

SEC("xdp")
int knockplane(struct xdp_md *frame)
{
    // The last argument is the verdict for a queue without a socket (kernel, AF_XDP documentation).
    long verdict = bpf_redirect_map(&sockets, frame->rx_queue_index, XDP_DROP);

    if (verdict != XDP_REDIRECT) {
        __u32 zero = 0;
        __u64 *count = bpf_map_lookup_elem(&unbound, &zero);
        if (count)
            (*count)++;
    }
    return verdict;
}

char _license[] SEC("license") = "Dual MIT/GPL";
