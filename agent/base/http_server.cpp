// SPDX-License-Identifier: Apache-2.0
#include "agent/base/http_server.h"

#include "agent/base/address.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <netinet/in.h>
#include <spdlog/spdlog.h>
#include <string_view>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace thruway {

/// A client, from one request to the next.
struct HttpServer::Connection {
    uint64_t id = 0;
    Fd socket;
    std::string input;        // not served yet
    std::string output;       // not sent yet
    bool keep = false;        // after the answer
    bool bodiless = false;    // the answer is to HEAD
    Loop::Timer deadline = 0; // of the client; none while it waits for us
};

namespace {

/// How long a client may take to send a whole request, or to take in an answer.
constexpr auto patience = std::chrono::seconds(30);
/// With one more the oldest is closed: who holds many connections and says nothing keeps nobody out.
constexpr size_t most_connections = 256;
constexpr size_t longest_head = 16'384;
constexpr size_t longest_body = 1 << 20;
constexpr std::string_view head_end = "\r\n\r\n";

std::string_view reason_of(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 413:
        return "Content Too Large";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    default:
        return status < 500 ? "Error" : "Internal Server Error";
    }
}

bool equal_names(std::string_view a, std::string_view b)
{
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    return std::ranges::equal(a, b, {}, lower, lower);
}

std::string_view trimmed(std::string_view text)
{
    const auto first = text.find_first_not_of(" \t");
    return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(" \t") + 1 - first);
}

/// The text up to `end`, which is taken off the rest along with it.
std::string_view take_until(std::string_view &rest, std::string_view end)
{
    const auto at = rest.find(end);
    const std::string_view taken = rest.substr(0, at);
    rest.remove_prefix(at == std::string_view::npos ? rest.size() : at + end.size());
    return taken;
}

/// What stands before the body of a request (RFC 9112).
struct Head {
    std::string method;
    std::string path;
    size_t length = 0;
    bool keep = false;
};

/// Fails with the status that tells the client what is wrong.
std::expected<Head, int> parse_head(std::string_view text)
{
    std::string_view line = take_until(text, "\r\n");
    Head head;
    head.method = take_until(line, " ");
    const std::string_view target = take_until(line, " ");
    head.path = target.substr(0, target.find('?'));
    if (head.method.empty() || !head.path.starts_with('/') || !line.starts_with("HTTP/1."))
        return std::unexpected(400);
    head.keep = line != "HTTP/1.0";
    while (!text.empty()) {
        std::string_view value = take_until(text, "\r\n");
        const std::string_view name = take_until(value, ":");
        value = trimmed(value);
        if (equal_names(name, "connection")) {
            head.keep = equal_names(value, "keep-alive") || (head.keep && !equal_names(value, "close"));
        } else if (equal_names(name, "transfer-encoding")) {
            return std::unexpected(501);
        } else if (equal_names(name, "content-length")) {
            const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), head.length);
            if (error != std::errc{} || end != value.data() + value.size())
                return std::unexpected(400);
        }
    }
    if (head.length > longest_body)
        return std::unexpected(413);
    return head;
}

struct SocketName {
    sockaddr_storage storage{};
    socklen_t size = 0;
};

SocketName socket_name(const Address &address, uint16_t port)
{
    SocketName name;
    if (address.family() == Family::ipv4) {
        auto &ipv4 = reinterpret_cast<sockaddr_in &>(name.storage);
        ipv4.sin_family = AF_INET;
        ipv4.sin_port = htons(port);
        std::memcpy(&ipv4.sin_addr, address.bytes(), address.size());
        name.size = sizeof(ipv4);
    } else {
        auto &ipv6 = reinterpret_cast<sockaddr_in6 &>(name.storage);
        ipv6.sin6_family = AF_INET6;
        ipv6.sin6_port = htons(port);
        std::memcpy(&ipv6.sin6_addr, address.bytes(), address.size());
        name.size = sizeof(ipv6);
    }
    return name;
}

Result<Fd> listen_on(const SocketName &name, const std::string &what)
{
    Fd socket(::socket(name.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int yes = 1;
    const int no = 0;
    if (name.storage.ss_family != AF_UNIX)
        ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (name.storage.ss_family == AF_INET6)
        ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
    if (!socket || ::bind(socket.get(), reinterpret_cast<const sockaddr *>(&name.storage), name.size) != 0 ||
        ::listen(socket.get(), SOMAXCONN) != 0)
        return fail_errno("cannot listen on {}", what);
    return socket;
}

Result<std::pair<Address, uint16_t>> parse_endpoint(const std::string &text)
{
    const auto colon = text.rfind(':');
    uint16_t port = 0;
    const char *end = text.data() + text.size();
    if (colon == std::string::npos || std::from_chars(text.data() + colon + 1, end, port).ptr != end)
        return fail("\"{}\" is no address and port", text);
    std::string_view host = std::string_view(text).substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']'))
        host = host.substr(1, host.size() - 2);
    const auto address = Address::parse(host);
    if (!address)
        return fail("\"{}\" is no address and port", text);
    return std::pair(*address, port);
}

} // namespace

HttpServer::HttpServer(Loop &loop, Fd listener, Handler handler)
    : loop_(loop), listener_(std::move(listener)), handler_(std::move(handler))
{
}

Result<std::unique_ptr<HttpServer>> HttpServer::serve(Loop &loop, Result<Fd> listener, Handler handler)
{
    if (!listener)
        return std::unexpected(listener.error());
    std::unique_ptr<HttpServer> server(
        new HttpServer(loop, std::move(*listener), std::move(handler))); // NOLINT(cppcoreguidelines-owning-memory)
    if (auto watched = loop.watch(server->listener_.get(), [s = server.get()] { s->accept_one(); }); !watched)
        return std::unexpected(watched.error());
    return server;
}

HttpServer::~HttpServer()
{
    loop_.forget(listener_.get());
    loop_.cancel(pause_);
    while (!connections_.empty())
        close(*connections_.begin()->second);
}

Result<std::unique_ptr<HttpServer>> HttpServer::on_address(Loop &loop, const std::string &address, Handler handler)
{
    const auto endpoint = parse_endpoint(address);
    if (!endpoint)
        return std::unexpected(endpoint.error());
    const auto [host, port] = *endpoint;
    auto listener = host.is_unspecified() ? listen_on(socket_name(Address::any(Family::ipv6), port), address)
                                          : listen_on(socket_name(host, port), address);
    if (!listener && host.is_unspecified() && listener.error().code() == EAFNOSUPPORT)
        listener = listen_on(socket_name(Address::any(Family::ipv4), port), address);
    return serve(loop, std::move(listener), std::move(handler));
}

Result<std::unique_ptr<HttpServer>> HttpServer::on_socket(Loop &loop, const std::string &path, Handler handler)
{
    SocketName name;
    auto &unix = reinterpret_cast<sockaddr_un &>(name.storage);
    if (path.size() >= sizeof(unix.sun_path))
        return fail("{} is too long for the name of a socket", path);
    unix.sun_family = AF_UNIX;
    path.copy(static_cast<char *>(unix.sun_path), path.size());
    name.size = sizeof(unix);
    ::unlink(path.c_str());
    const mode_t mask = ::umask(0177);
    auto listener = listen_on(name, path);
    ::umask(mask);
    return serve(loop, std::move(listener), std::move(handler));
}

uint16_t HttpServer::port() const
{
    SocketName name{.size = sizeof(name.storage)};
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr *>(&name.storage), &name.size);
    // The port is at the same place in both families.
    return ntohs(reinterpret_cast<sockaddr_in &>(name.storage).sin_port);
}

void HttpServer::accept_one()
{
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
        if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
            return; // the client has gone
        loop_.forget(listener_.get());
        pause_ = loop_.after(std::chrono::seconds(1), [this] {
            if (auto watched = loop_.watch(listener_.get(), [this] { accept_one(); }); !watched)
                spdlog::error("HTTP: {}", watched.error().text());
        });
        return;
    }
    if (connections_.size() >= most_connections)
        close(*connections_.begin()->second);
    auto connection = std::make_shared<Connection>();
    connection->id = next_id_++;
    connection->socket = std::move(socket);
    Connection &added = *connections_.emplace(connection->id, std::move(connection)).first->second;
    wait_for(added, Loop::Ready::read);
}

/// Goes on, once, when the socket is ready.
void HttpServer::wait_for(Connection &connection, Loop::Ready ready)
{
    const auto go_on = [this, &connection, ready] {
        loop_.forget(connection.socket.get());
        ready == Loop::Ready::read ? receive(connection) : send(connection);
    };
    if (connection.deadline == 0)
        connection.deadline = loop_.after(patience, [this, &connection] { close(connection); });
    if (!loop_.watch(connection.socket.get(), go_on, ready))
        close(connection);
}

void HttpServer::close(Connection &connection)
{
    loop_.cancel(connection.deadline);
    loop_.forget(connection.socket.get());
    connections_.erase(connection.id);
}

void HttpServer::receive(Connection &connection)
{
    std::array<char, 16'384> buffer{};
    const auto got = ::recv(connection.socket.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EAGAIN)
        return wait_for(connection, Loop::Ready::read);
    if (got <= 0)
        return close(connection);
    connection.input.append(buffer.data(), static_cast<size_t>(got));
    serve_input(connection);
}

void HttpServer::serve_input(Connection &connection)
{
    const auto size = connection.input.find(head_end);
    if (size == std::string::npos && connection.input.size() <= longest_head)
        return wait_for(connection, Loop::Ready::read);
    const auto head = size <= longest_head ? parse_head(std::string_view(connection.input).substr(0, size))
                                           : std::expected<Head, int>(std::unexpected(400));
    if (!head) {
        connection.keep = false;
        return answer(connection, {.status = head.error()});
    }
    const size_t begin = size + head_end.size();
    if (connection.input.size() - begin < head->length)
        return wait_for(connection, Loop::Ready::read);

    loop_.cancel(std::exchange(connection.deadline, 0));
    // A client that sends more before it has the answer is told to do so on another connection (RFC 9112
    // section 9.3.2).
    connection.keep = head->keep && connection.input.size() == begin + head->length;
    connection.bodiless = head->method == "HEAD";
    const HttpRequest request{.method = connection.bodiless ? "GET" : head->method,
                              .path = head->path,
                              .body = connection.input.substr(begin, head->length)};
    connection.input.clear();
    handler_(request, [this, id = std::weak_ptr(connections_.at(connection.id))](const HttpResponse &response) {
        if (const auto still_there = id.lock())
            answer(*still_there, response);
    });
}

void HttpServer::answer(Connection &connection, const HttpResponse &response)
{
    auto out = std::back_inserter(connection.output);
    fmt::format_to(out, "HTTP/1.1 {} {}\r\nContent-Length: {}\r\n", response.status, reason_of(response.status),
                   response.body.size());
    if (!response.type.empty())
        fmt::format_to(out, "Content-Type: {}\r\n", response.type);
    for (const auto &[name, value] : response.headers)
        fmt::format_to(out, "{}: {}\r\n", name, value);
    fmt::format_to(out, "Connection: {}\r\n\r\n", connection.keep ? "keep-alive" : "close");
    if (!connection.bodiless)
        connection.output += response.body;
    send(connection);
}

void HttpServer::send(Connection &connection)
{
    while (!connection.output.empty()) {
        const auto sent =
            ::send(connection.socket.get(), connection.output.data(), connection.output.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            return wait_for(connection, Loop::Ready::write);
        if (sent < 0)
            return close(connection);
        connection.output.erase(0, static_cast<size_t>(sent));
    }
    if (!connection.keep)
        return close(connection);
    loop_.cancel(std::exchange(connection.deadline, 0));
    wait_for(connection, Loop::Ready::read);
}

PatientServer::PatientServer(Loop &loop, std::string address, HttpServer::Handler handler,
                             const std::function<void(const Error &error)> &told)
    : loop_(loop), address_(std::move(address)), handler_(std::move(handler))
{
    if (auto served = serve(); !served) {
        told(served.error());
        try_again();
    }
}

Result<> PatientServer::serve()
{
    auto server = HttpServer::on_address(loop_, address_, handler_);
    if (!server)
        return std::unexpected(server.error());
    server_ = std::move(*server);
    return {};
}

void PatientServer::try_again()
{
    timer_ = loop_.after(std::chrono::seconds(5), [this] {
        if (serve())
            spdlog::info("listening on {} now", address_);
        else
            try_again();
    });
}

HttpServer::Handler http_routes(std::map<std::string, HttpServer::Handler> routes)
{
    return [routes = std::move(routes)](const HttpRequest &request, HttpServer::Reply reply) {
        const auto found = routes.find(request.method + " " + request.path);
        if (found == routes.end())
            return reply({.status = 404, .body = "404 page not found\n"});
        found->second(request, std::move(reply));
    };
}

} // namespace thruway
