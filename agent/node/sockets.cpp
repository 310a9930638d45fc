// SPDX-License-Identifier: Apache-2.0
#include "agent/node/sockets.h"

#include "agent/base/address.h"

#include <algorithm>
#include <array>
#include <bpf/bpf.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <memory>
#include <netinet/in.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

namespace thruway {
namespace {

using Socket = std::unique_ptr<nl_sock, decltype(&nl_socket_free)>;
using Message = std::unique_ptr<nl_msg, decltype(&nlmsg_free)>;

/// All UDP sockets that are connected to a backend in the place of a service.
Result<std::vector<tw_connected>> connected_sockets(const Datapath &datapath)
{
    bpf_iter_link_info what{};
    what.map.map_fd = static_cast<uint32_t>(datapath.maps().sockets.fd());
    bpf_link_create_opts options{};
    options.sz = sizeof(options);
    options.iter_info = &what;
    options.iter_info_len = sizeof(what);
    const Fd link(bpf_link_create(datapath.sockets_connected(), 0, BPF_TRACE_ITER, &options));
    const Fd walk(link ? bpf_iter_create(link.get()) : -1);
    if (!walk)
        return fail_errno("cannot list sockets");
    std::vector<tw_connected> sockets;
    std::array<tw_connected, 64> some; // the kernel gives whole rows
    ssize_t size = 0;
    while ((size = ::read(walk.get(), some.data(), sizeof(some))) > 0)
        sockets.insert(sockets.end(), some.begin(), some.begin() + size / static_cast<ssize_t>(sizeof(some[0])));
    if (size < 0)
        return fail_errno("cannot list sockets");
    return sockets;
}

bool is_lost(const tw_connected &socket, const std::vector<tw_purge> &lost)
{
    return std::ranges::any_of(lost, [&](const tw_purge &purge) {
        return purge.protocol == IPPROTO_UDP && purge.service == socket.service &&
               (purge.port == 0 ||
                (purge.port == socket.backend.port && Address(purge.address) == Address(socket.backend.address)));
    });
}

inet_diag_req_v2 naming(const tw_connected &socket)
{
    inet_diag_req_v2 request{};
    request.sdiag_family = socket.v6 ? AF_INET6 : AF_INET;
    request.sdiag_protocol = IPPROTO_UDP;
    request.idiag_states = ~0U;
    request.id.idiag_sport = socket.local.port;
    request.id.idiag_dport = socket.backend.port;
    const auto put = [&](const tw_address &address, auto &field) {
        if (socket.v6)
            std::memcpy(&field, &address, sizeof(address));
        else
            field[0] = address.word[3];
    };
    put(socket.local.address, request.id.idiag_src);
    put(socket.backend.address, request.id.idiag_dst);
    request.id.idiag_cookie[0] = static_cast<uint32_t>(socket.cookie);
    request.id.idiag_cookie[1] = static_cast<uint32_t>(socket.cookie >> 32);
    return request;
}

Result<> end_socket(nl_sock *netlink, const tw_connected &socket)
{
    inet_diag_req_v2 request = naming(socket);
    const Message message(nlmsg_alloc_simple(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK), nlmsg_free);
    int error = message ? nlmsg_append(message.get(), &request, sizeof(request), NLMSG_ALIGNTO) : -NLE_NOMEM;
    if (error >= 0)
        error = nl_send_auto(netlink, message.get());
    if (error >= 0)
        error = nl_wait_for_ack(netlink);
    if (error < 0 && error != -NLE_OBJ_NOTFOUND) // it has just been closed
        return fail("cannot end the UDP socket to {}, port {}: {}", Address(socket.backend.address).text(),
                    ntohs(socket.backend.port), nl_geterror(error));
    return {};
}

} // namespace

Result<unsigned> end_lost_sockets(const Datapath &datapath, const std::vector<tw_purge> &lost)
{
    auto sockets = connected_sockets(datapath);
    if (!sockets)
        return std::unexpected(sockets.error());
    std::erase_if(*sockets, [&](const tw_connected &socket) { return !is_lost(socket, lost); });
    if (sockets->empty())
        return 0;
    const Socket netlink(nl_socket_alloc(), nl_socket_free);
    if (!netlink)
        return fail_code(ENOMEM, "netlink");
    if (const int error = nl_connect(netlink.get(), NETLINK_SOCK_DIAG); error < 0)
        return fail("cannot ask the kernel for sockets: {}", nl_geterror(error));
    for (const tw_connected &socket : *sockets)
        if (auto ended = end_socket(netlink.get(), socket); !ended)
            return std::unexpected(ended.error());
    return static_cast<unsigned>(sockets->size());
}

} // namespace thruway
