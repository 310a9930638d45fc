// SPDX-License-Identifier: Apache-2.0
#include "agent/base/http_server.h"

#include "agent/base/address.h"

#include <charconv>
#include <microhttpd.h>
#include <netinet/in.h>
#include <optional>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace thruway {

/// A request as it comes in, and its answer for as long as that is sent.
struct HttpServer::Exchange {
    HttpRequest request;
    std::optional<HttpResponse> response;
    bool suspended = false; // the client waits for us
};

namespace {

/// Seconds that a client may be silent in the middle of a request or an answer, or between two.
constexpr unsigned patience = 30;
/// With one more the oldest is closed: who holds many connections and says nothing keeps nobody out.
constexpr size_t most_clients = 256;
constexpr size_t longest_body = 1 << 20;

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

int epoll_of(MHD_Daemon &daemon)
{
    return MHD_get_daemon_info(&daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

/// `response` must stay until the exchange is completed.
bool send(MHD_Connection *client, HttpResponse &response)
{
    const std::unique_ptr<MHD_Response, decltype(&MHD_destroy_response)> out(
        MHD_create_response_from_buffer(response.body.size(), response.body.data(), MHD_RESPMEM_PERSISTENT),
        MHD_destroy_response);
    if (!out)
        return false;
    if (!response.type.empty())
        MHD_add_response_header(out.get(), MHD_HTTP_HEADER_CONTENT_TYPE, response.type.c_str());
    for (const auto &[name, value] : response.headers)
        MHD_add_response_header(out.get(), name.c_str(), value.c_str());
    return MHD_queue_response(client, static_cast<unsigned>(response.status), out.get()) == MHD_YES;
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
    if (auto started = server->start(); !started)
        return std::unexpected(started.error());
    return server;
}

/// The library is given clients, and no listener: it would spin while the process is out of descriptors.
Result<> HttpServer::start()
{
    const MHD_AccessHandlerCallback received = [](void *self, MHD_Connection *client, const char *path,
                                                  const char *method, const char *, const char *body, size_t *size,
                                                  void **) {
        const std::string_view piece(body, std::exchange(*size, 0));
        return static_cast<HttpServer *>(self)->take(client, {.method = method, .path = path}, piece) ? MHD_YES
                                                                                                      : MHD_NO;
    };
    const MHD_RequestCompletedCallback completed = [](void *self, MHD_Connection *client, void **,
                                                      MHD_RequestTerminationCode) {
        static_cast<HttpServer *>(self)->exchanges_.erase(client);
    };
    const MHD_NotifyConnectionCallback changed = [](void *self, MHD_Connection *client, void **,
                                                    MHD_ConnectionNotificationCode code) {
        auto &clients = static_cast<HttpServer *>(self)->clients_;
        const int socket = MHD_get_connection_info(client, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        if (code == MHD_CONNECTION_NOTIFY_STARTED)
            clients.push_back(socket);
        else
            std::erase(clients, socket);
    };
    daemon_.reset(MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0, nullptr,
                                   nullptr, received, this, MHD_OPTION_CONNECTION_TIMEOUT, patience,
                                   MHD_OPTION_NOTIFY_COMPLETED, completed, this, MHD_OPTION_NOTIFY_CONNECTION, changed,
                                   this, MHD_OPTION_END));
    if (!daemon_)
        return fail_errno("cannot start an HTTP server");
    if (auto watched = loop_.watch(epoll_of(*daemon_), [this] { run(); }); !watched)
        return watched;
    return loop_.watch(listener_.get(), [this] { accept_one(); });
}

void HttpServer::Stop::operator()(MHD_Daemon *daemon) const
{
    MHD_stop_daemon(daemon);
}

HttpServer::~HttpServer()
{
    loop_.forget(listener_.get());
    loop_.cancel(pause_);
    loop_.cancel(next_run_);
    if (daemon_)
        loop_.forget(epoll_of(*daemon_));
    // The library stops only when nobody is suspended.
    for (auto &[client, exchange] : exchanges_)
        if (exchange->suspended)
            MHD_resume_connection(client);
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
    SocketName name{.size = sizeof(name.storage)};
    auto *const from = reinterpret_cast<sockaddr *>(&name.storage);
    Fd socket(::accept4(listener_.get(), from, &name.size, SOCK_CLOEXEC | SOCK_NONBLOCK));
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
    if (clients_.size() >= most_clients) {
        ::shutdown(clients_.front(), SHUT_RDWR);
        clients_.pop_front();
    }
    MHD_add_connection(daemon_.get(), socket.release(), from, name.size); // which closes it if it fails
}

/// Does what there is to do, and comes back when there is more, or a client's time is over.
void HttpServer::run()
{
    loop_.cancel(std::exchange(next_run_, 0));
    MHD_run(daemon_.get());
    unsigned long long milliseconds = 0;
    if (next_run_ == 0 && MHD_get_timeout(daemon_.get(), &milliseconds) == MHD_YES)
        run_after(std::chrono::milliseconds(milliseconds));
}

void HttpServer::run_after(std::chrono::milliseconds delay)
{
    loop_.cancel(next_run_);
    next_run_ = loop_.after(delay, [this] { run(); });
}

/// Called with the head alone, then with each piece of the body, then with nothing, and with nothing again when a
/// suspended exchange goes on. False closes the connection.
bool HttpServer::take(MHD_Connection *client, HttpRequest head, std::string_view body)
{
    const auto [entry, added] = exchanges_.try_emplace(client);
    auto &exchange = entry->second;
    if (added) {
        exchange = std::make_shared<Exchange>(std::move(head));
        return true;
    }
    if (!body.empty()) {
        // What is too much is taken, too, so that the client comes to read the answer.
        exchange->request.body.append(body.substr(0, longest_body + 1 - exchange->request.body.size()));
        return true;
    }
    if (!exchange->response)
        ask_handler(client, exchange);
    return exchange->suspended || send(client, *exchange->response);
}

void HttpServer::ask_handler(MHD_Connection *client, const std::shared_ptr<Exchange> &exchange)
{
    if (exchange->request.body.size() > longest_body) {
        exchange->response = {.status = MHD_HTTP_CONTENT_TOO_LARGE};
        return;
    }
    if (exchange->request.method == MHD_HTTP_METHOD_HEAD) // the library keeps the body
        exchange->request.method = MHD_HTTP_METHOD_GET;
    handler_(exchange->request, [this, client, id = std::weak_ptr(exchange)](HttpResponse response) {
        const auto waiting = id.lock();
        if (!waiting)
            return;
        waiting->response = std::move(response);
        if (std::exchange(waiting->suspended, false)) {
            MHD_resume_connection(client);
            run_after(std::chrono::milliseconds(0)); // not now: this may be called by what run() calls
        }
    });
    if (!exchange->response) {
        exchange->suspended = true;
        MHD_suspend_connection(client);
    }
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
