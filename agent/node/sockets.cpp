// SPDX-License-Identifier: Apache-2.0
#include "agent/node/sockets.h"

#include "agent/base/address.h"
#include "agent/node/sock_diag.h"

#include <algorithm>
#include <array>
#include <bpf/bpf.h>
#include <linux/inet_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace thruway {
namespace {

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

} // namespace

Result<unsigned> end_lost_sockets(const Datapath &datapath, const std::vector<tw_purge> &lost)
{
    auto sockets = connected_sockets(datapath);
    if (!sockets)
        return std::unexpected(sockets.error());
    std::erase_if(*sockets, [&](const tw_connected &socket) { return !is_lost(socket, lost); });
    if (sockets->empty())
        return 0;
    auto kernel = SockDiag::open();
    if (!kernel)
        return std::unexpected(kernel.error());
    for (const tw_connected &socket : *sockets)
        if (auto ended = kernel->end(naming(socket)); !ended)
            return fail_within(fmt::format("UDP socket to {}, port {}", Address(socket.backend.address).text(),
                                           ntohs(socket.backend.port)),
                               ended.error());
    return static_cast<unsigned>(sockets->size());
}

} // namespace thruway
