// SPDX-License-Identifier: Apache-2.0
#include "agent/node/sock_diag.h"

#include "agent/base/file.h"

#include <array>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace thruway {
namespace {

namespace fs = std::filesystem;

inet_diag_req_v2 listener_at(const Address &address, uint16_t port, Protocol protocol)
{
    inet_diag_req_v2 wanted{};
    wanted.sdiag_family = address.family() == Family::ipv4 ? AF_INET : AF_INET6;
    wanted.sdiag_protocol = static_cast<uint8_t>(protocol);
    inet_diag_sockid &id = wanted.id;
    id.idiag_cookie[0] = id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    // The other end is nobody in particular. For UDP the kernel has the two ends swapped (net/ipv4/udp_diag.c,
    // udp_diag_dump_one).
    const bool swapped = protocol == Protocol::udp;
    std::memcpy(swapped ? id.idiag_dst : id.idiag_src, address.bytes(), address.size());
    (swapped ? id.idiag_dport : id.idiag_sport) = htons(port);
    return wanted;
}

} // namespace

Result<SockDiag> SockDiag::open()
{
    Fd socket(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    if (!socket)
        return fail_errno("sock_diag");
    return SockDiag(std::move(socket));
}

/// What the kernel says of the socket; nothing if there is none.
Result<std::optional<inet_diag_msg>> SockDiag::ask(uint16_t type, const inet_diag_req_v2 &socket)
{
    struct {
        nlmsghdr head;
        inet_diag_req_v2 body;
    } request{{.nlmsg_len = sizeof(request), .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST}, socket};
    if (type == SOCK_DESTROY) // which has no other answer
        request.head.nlmsg_flags |= NLM_F_ACK;
    alignas(nlmsghdr) std::array<char, 8192> buffer{};
    if (::send(socket_.get(), &request, sizeof(request), 0) < 0)
        return fail_errno("sock_diag");
    // The kernel answers before send() returns.
    const auto got = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < static_cast<ssize_t>(sizeof(nlmsghdr)))
        return fail_errno("sock_diag");
    const auto &head = reinterpret_cast<const nlmsghdr &>(buffer);
    inet_diag_msg answer{};
    if (head.nlmsg_type == NLMSG_ERROR) {
        nlmsgerr error{};
        std::memcpy(&error, NLMSG_DATA(&head), sizeof(error));
        if (error.error == -ENOENT)
            return std::nullopt;
        if (error.error != 0)
            return fail_code(-error.error, "sock_diag");
    } else {
        std::memcpy(&answer, NLMSG_DATA(&head), sizeof(answer));
    }
    return answer;
}

Result<std::optional<SocketOwner>> SockDiag::at(const Address &address, uint16_t port, Protocol protocol)
{
    const auto socket = ask(SOCK_DIAG_BY_FAMILY, listener_at(address, port, protocol));
    if (!socket)
        return std::unexpected(socket.error());
    if (!*socket)
        return std::nullopt;
    return SocketOwner{(*socket)->idiag_inode, (*socket)->idiag_uid};
}

Result<> SockDiag::end(const inet_diag_req_v2 &socket)
{
    const auto ended = ask(SOCK_DESTROY, socket);
    return ended ? Result<>{} : std::unexpected(ended.error());
}

std::unordered_map<uint64_t, std::string> socket_processes()
{
    constexpr std::string_view prefix = "socket:[";
    std::unordered_map<uint64_t, std::string> all;
    std::error_code error; // processes come and go
    for (const auto &process : fs::directory_iterator("/proc", error)) {
        const std::string pid = process.path().filename();
        if (pid.find_first_not_of("0123456789") != std::string::npos)
            continue;
        std::string name;
        for (const auto &descriptor : fs::directory_iterator(process.path() / "fd", error)) {
            const std::string target = fs::read_symlink(descriptor.path(), error);
            uint64_t inode = 0;
            if (!target.starts_with(prefix) ||
                std::from_chars(target.data() + prefix.size(), target.data() + target.size(), inode).ec != std::errc{})
                continue;
            if (name.empty())
                name = read_file(process.path() / "comm").value_or("?\n");
            all.emplace(inode, fmt::format("{} ({})", pid, name.substr(0, name.size() - 1)));
        }
    }
    return all;
}

} // namespace thruway
