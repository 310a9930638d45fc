// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Lists the UDP sockets that are connected to a backend in the place of a service. Such a one says to whom it talks
 * only once, so when the backend goes the agent has to end it; what is sent by address is translated each time. */

#include "lib/kernel.h"
#include "lib/maps.h"

#include "lib/packet.h"

enum { SOCKET_CONNECTED = 1 /* TCP_ESTABLISHED of include/net/tcp_states.h, in UDP, too */, FAMILY_IPV6 = 10 };

/* Of include/net/sock.h and include/linux/bpf.h, at the offsets that they have in the kernel that runs. */
struct sock_common {
    u32 skc_daddr;
    u32 skc_rcv_saddr;
    u16 skc_dport;
    u16 skc_num; /* in host byte order */
    u16 skc_family;
    u8 skc_state;
    struct in6_addr skc_v6_daddr;
    struct in6_addr skc_v6_rcv_saddr;
} __attribute__((preserve_access_index));

struct sock {
    struct sock_common __sk_common;
    u16 sk_protocol;
} __attribute__((preserve_access_index));

struct bpf_iter_meta {
    struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_sk_storage_map {
    struct bpf_iter_meta *meta;
    struct sock *sk;
    struct tw_socket *value;
} __attribute__((preserve_access_index));

inline_always void sock_ends(struct sock *sk, struct tw_connected *row)
{
    struct in6_addr local, peer;

    row->v6 = sk->__sk_common.skc_family == FAMILY_IPV6;
    row->local.port = bpf_htons(sk->__sk_common.skc_num);
    row->backend.port = sk->__sk_common.skc_dport;
    if (row->v6) {
        BPF_CORE_READ_INTO(&local, sk, __sk_common.skc_v6_rcv_saddr);
        BPF_CORE_READ_INTO(&peer, sk, __sk_common.skc_v6_daddr);
        __builtin_memcpy(&row->local.address, &local, sizeof(local));
        __builtin_memcpy(&row->backend.address, &peer, sizeof(peer));
    } else {
        row->local.address = address_from4(sk->__sk_common.skc_rcv_saddr);
        row->backend.address = address_from4(sk->__sk_common.skc_daddr);
    }
}

SEC("iter/bpf_sk_storage_map")
int sockets_connected(struct bpf_iter__bpf_sk_storage_map *ctx)
{
    struct tw_socket *socket = ctx->value;
    struct tw_connected row = {};
    struct sock *sk = ctx->sk;

    if (!sk || !socket || sk->sk_protocol != IPPROTO_UDP || sk->__sk_common.skc_state != SOCKET_CONNECTED)
        return 0;
    sock_ends(sk, &row);
    row.cookie = bpf_get_socket_cookie(sk);
    for (int i = 0; i < TW_SOCKET_TRANSLATIONS; i++) {
        struct tw_translation *translation = &socket->translation[i];

        if (!translation->frontend.port || translation->backend.port != row.backend.port ||
            !address_equal(&translation->backend.address, &row.backend.address))
            continue;
        row.service = translation->service;
        bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
        break;
    }
    return 0;
}

const char LICENSE[] __attribute__((weak)) SEC("license") = "Dual BSD/GPL";
