// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Service translation at the socket: a process talks to the backend from its first packet on, and is told that it talks
 * to the service. Addresses are IPv4-mapped throughout, so a v6 socket that dials an IPv4 service through
 * ::ffff:a.b.c.d is nothing special. */

#include "lib/config.h"
#include "lib/service.h"

#include <thruway/drop.h>

enum { SOCK_REFUSE = 0, SOCK_ALLOW = 1, ECONNREFUSED_ = 111 };

/* True for a socket of the node itself, and not of a pod. */
inline_always bool sock_of_node(struct bpf_sock_addr *ctx)
{
    return bpf_get_netns_cookie(ctx) == config.netns_cookie;
}

inline_always bool sock_is_ours(struct bpf_sock_addr *ctx)
{
    if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
        return false;
    return config.sock_all || sock_of_node(ctx);
}

inline_always void sock_get(struct bpf_sock_addr *ctx, struct tw_end *end, const bool v6)
{
    if (v6) {
        end->address.word[0] = ctx->user_ip6[0];
        end->address.word[1] = ctx->user_ip6[1];
        end->address.word[2] = ctx->user_ip6[2];
        end->address.word[3] = ctx->user_ip6[3];
    } else {
        end->address = address_from4(ctx->user_ip4);
    }
    end->port = ctx->user_port;
}

inline_always void sock_set(struct bpf_sock_addr *ctx, const struct tw_end *end, const bool v6)
{
    if (v6) {
        ctx->user_ip6[0] = end->address.word[0];
        ctx->user_ip6[1] = end->address.word[1];
        ctx->user_ip6[2] = end->address.word[2];
        ctx->user_ip6[3] = end->address.word[3];
    } else {
        ctx->user_ip4 = end->address.word[3];
    }
    ctx->user_port = end->port;
}

/* A name for the client in the place of its address, which the socket has none of yet: its network namespace. */
inline_always void sock_name(struct bpf_sock_addr *ctx, struct tw_address *name)
{
    u64 cookie = bpf_get_netns_cookie(ctx);

    name->word[0] = cookie >> 32;
    name->word[1] = cookie;
}

inline_always bool end_equal(const struct tw_end *a, const struct tw_end *b)
{
    return a->port == b->port && address_equal(&a->address, &b->address);
}

/* True for loopback addresses, and the unspecified one, which a socket that dials it takes for them. */
inline_always bool address_is_loopback(const struct tw_address *address)
{
    u32 last = bpf_ntohl(address->word[3]);

    if (address_is4(address))
        return !last || last >> 24 == 127;
    return !address->word[0] && !address->word[1] && !address->word[2] && last <= 1;
}

/* The service that a socket dials. By configuration NodePorts are on the node's loopback, too. For the node's sockets
 * only: a pod has a loopback of its own, and packets from elsewhere that claim to be for it are nobody's. */
inline_always bool sock_find(struct bpf_sock_addr *ctx, const struct tw_end *end, struct chosen *chosen)
{
    struct tw_address address = end->address;

    if (address_is_loopback(&address)) {
        if (!config.localhost_node_ports || !sock_of_node(ctx))
            return false;
        address = address_is4(&address) ? address_from4(0) : (struct tw_address){};
    }
    return service_find(&address, end->port, ctx->protocol, chosen);
}

/* The backend that this socket already talks to behind this frontend, if it still serves: datagrams of one socket stay
 * together. */
inline_always const struct tw_translation *sock_known(struct tw_socket *socket, const struct tw_end *frontend)
{
    for (int i = 0; i < TW_SOCKET_TRANSLATIONS; i++) {
        struct tw_translation *translation = &socket->translation[i];
        u32 index = translation->backend_index;
        struct tw_backend *backend;

        if (!translation->frontend.port || !end_equal(&translation->frontend, frontend))
            continue;
        backend = bpf_map_lookup_elem(&backends, &index);
        if (backend && backend->flags & TW_BACKEND_SERVING && backend->port == translation->backend.port &&
            address_equal(&backend->address, &translation->backend.address))
            return translation;
        translation->frontend.port = 0;
    }
    return 0;
}

inline_always void sock_remember(struct tw_socket *socket, const struct tw_translation *translation)
{
    u32 at = socket->next % TW_SOCKET_TRANSLATIONS;

    socket->translation[at] = *translation;
    socket->next = at + 1;
}

/* connect and sendmsg: from the frontend to a backend. */
inline_always int sock_out(struct bpf_sock_addr *ctx, bool sticky, const bool v6)
{
    struct tw_translation made = {};
    const struct tw_translation *known = 0;
    const struct tw_backend *backend;
    struct tw_address from = {};
    enum tw_drop reason;
    struct tw_socket *socket = 0;
    struct chosen chosen;

    if (!sock_is_ours(ctx))
        return SOCK_ALLOW;
    sock_get(ctx, &made.frontend, v6);
    if (!sock_find(ctx, &made.frontend, &chosen))
        return SOCK_ALLOW;
    if (!sticky && ctx->protocol == IPPROTO_UDP && !sock_of_node(ctx)) /* its packets can be led elsewhere, it cannot */
        return SOCK_ALLOW;
    if (ctx->sk)
        socket = bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (socket && sticky)
        known = sock_known(socket, &made.frontend);
    if (known) {
        sock_set(ctx, &known->backend, v6);
        return SOCK_ALLOW;
    }
    if (chosen.kind == TW_FRONTEND_BALANCER) /* whether it may dial depends on its address: told from its packets */
        return SOCK_ALLOW;
    sock_name(ctx, &from);
    reason = service_pick(&chosen, &from, false, &made.backend_index);
    if (reason == TW_DROP_NO_BACKEND) {
        bpf_set_retval(-ECONNREFUSED_);
        return SOCK_REFUSE;
    }
    backend = bpf_map_lookup_elem(&backends, &made.backend_index);
    if (reason || !backend) /* its packets are dropped, and counted */
        return SOCK_ALLOW;
    made.backend.address = backend->address;
    made.backend.port = backend->port;
    made.service = chosen.service;
    if (socket)
        sock_remember(socket, &made);
    sock_set(ctx, &made.backend, v6);
    service_count_connection(chosen.service);
    return SOCK_ALLOW;
}

/* recvmsg and getpeername: from the backend to the frontend that was dialled. */
inline_always int sock_in(struct bpf_sock_addr *ctx, const bool v6)
{
    struct tw_end peer = {};
    struct tw_socket *socket;

    if (!sock_is_ours(ctx) || !ctx->sk)
        return SOCK_ALLOW;
    socket = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0);
    if (!socket)
        return SOCK_ALLOW;
    sock_get(ctx, &peer, v6);
    for (int i = 0; i < TW_SOCKET_TRANSLATIONS; i++) {
        struct tw_translation *translation = &socket->translation[i];

        if (translation->frontend.port && end_equal(&translation->backend, &peer)) {
            sock_set(ctx, &translation->frontend, v6);
            break;
        }
    }
    return SOCK_ALLOW;
}

SEC("cgroup/connect4")
int sock_connect4(struct bpf_sock_addr *ctx)
{
    return sock_out(ctx, false, false);
}

SEC("cgroup/connect6")
int sock_connect6(struct bpf_sock_addr *ctx)
{
    return sock_out(ctx, false, true);
}

SEC("cgroup/sendmsg4")
int sock_sendmsg4(struct bpf_sock_addr *ctx)
{
    return sock_out(ctx, true, false);
}

SEC("cgroup/sendmsg6")
int sock_sendmsg6(struct bpf_sock_addr *ctx)
{
    return sock_out(ctx, true, true);
}

SEC("cgroup/recvmsg4")
int sock_recvmsg4(struct bpf_sock_addr *ctx)
{
    return sock_in(ctx, false);
}

SEC("cgroup/recvmsg6")
int sock_recvmsg6(struct bpf_sock_addr *ctx)
{
    return sock_in(ctx, true);
}

SEC("cgroup/getpeername4")
int sock_peer4(struct bpf_sock_addr *ctx)
{
    return sock_in(ctx, false);
}

SEC("cgroup/getpeername6")
int sock_peer6(struct bpf_sock_addr *ctx)
{
    return sock_in(ctx, true);
}

const char LICENSE[] __attribute__((weak)) SEC("license") = "Dual BSD/GPL";
