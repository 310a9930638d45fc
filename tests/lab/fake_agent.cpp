// SPDX-License-Identifier: Apache-2.0
#include "agent/base/fd.h"

#include <array>
#include <cstdio>
#include <cstring>
#include <netinet/in.h>
#include <string_view>
#include <sys/socket.h>

/// An agent that only says what it was started with, and is healthy. "--die" makes it fail as a real one might,
/// "--mute" never be ready.
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        std::printf("%s\n", argv[i]);
    std::fflush(stdout);
    const std::string_view last = argv[argc - 1];
    if (last == "--die") {
        std::fprintf(stderr, "uplink eth9: no such interface\n");
        return 1;
    }

    const thruway::Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(10256);
    if (::bind(listener.get(), reinterpret_cast<sockaddr *>(&name), sizeof(name)) != 0 ||
        ::listen(listener.get(), 8) != 0)
        return 1;
    const std::string_view answer =
        last == "--mute" ? "HTTP/1.1 503 Service Unavailable\r\n\r\n" : "HTTP/1.1 200 OK\r\n\r\n";
    while (true) {
        const thruway::Fd client(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        std::array<char, 1024> request{};
        if (::recv(client.get(), request.data(), request.size(), 0) > 0)
            ::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
}
