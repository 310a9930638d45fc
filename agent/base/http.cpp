// SPDX-License-Identifier: Apache-2.0
#include "agent/base/http.h"

#include <charconv>
#include <httplib.h>
#include <sys/stat.h>
#include <thread>

namespace thruway {

struct HttpServer::Implementation {
    httplib::Server server;
    std::thread thread;
};

namespace {

/// The library wants two threads at least: one that accepts, one that answers.
constexpr size_t workers = 2;

void install(httplib::Server &server, HttpServer::Handlers handlers)
{
    // The library takes ownership of the queue.
    // By default the library lets several servers share a port, of which each gets some of the requests.
    server.set_socket_options([](int socket) {
        const int yes = 1;
        setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    server.new_task_queue = [] { return new httplib::ThreadPool(workers); }; // NOLINT(cppcoreguidelines-owning-memory)
    for (auto &[what, handler] : handlers) {
        const auto space = what.find(' ');
        const std::string method = what.substr(0, space);
        const std::string path = what.substr(space + 1);
        const auto serve = [handle = std::move(handler)](const httplib::Request &request, httplib::Response &response) {
            const HttpResponse answer = handle(request.body);
            response.status = answer.status;
            response.set_content(answer.body, answer.type.c_str());
        };
        if (method == "POST")
            server.Post(path, serve);
        else
            server.Get(path, serve);
    }
}

} // namespace

HttpServer::HttpServer(std::unique_ptr<Implementation> implementation) : implementation_(std::move(implementation))
{
    implementation_->thread = std::thread([server = &implementation_->server] { server->listen_after_bind(); });
    while (!implementation_->server.is_running()) // before that, stop() would have no effect
        std::this_thread::yield();
}

HttpServer::~HttpServer()
{
    implementation_->server.stop();
    implementation_->thread.join();
}

Result<std::unique_ptr<HttpServer>> HttpServer::on_address(const std::string &address, Handlers handlers)
{
    const auto colon = address.rfind(':');
    int port = 0;
    const char *end = address.data() + address.size();
    if (colon == std::string::npos || std::from_chars(address.data() + colon + 1, end, port).ptr != end ||
        port > 65'535)
        return fail("\"{}\" is no address and port", address);
    std::string host = address.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']'))
        host = host.substr(1, host.size() - 2);

    auto made = std::make_unique<Implementation>();
    install(made->server, std::move(handlers));
    if (!made->server.bind_to_port(host.c_str(), port))
        return fail_errno("cannot listen on {}", address);
    return std::unique_ptr<HttpServer>(new HttpServer(std::move(made))); // NOLINT(cppcoreguidelines-owning-memory)
}

Result<std::unique_ptr<HttpServer>> HttpServer::on_socket(const std::string &path, Handlers handlers)
{
    auto made = std::make_unique<Implementation>();
    made->server.set_address_family(AF_UNIX);
    install(made->server, std::move(handlers));
    ::unlink(path.c_str());
    const mode_t mask = ::umask(0177);
    const bool bound = made->server.bind_to_port(path.c_str(), 80);
    ::umask(mask);
    if (!bound)
        return fail_errno("cannot listen on {}", path);
    return std::unique_ptr<HttpServer>(new HttpServer(std::move(made))); // NOLINT(cppcoreguidelines-owning-memory)
}

Result<HttpResponse> http_on_socket(const std::string &path, const std::string &method, const std::string &target,
                                    const std::string &body, int seconds)
{
    httplib::Client client(path);
    client.set_address_family(AF_UNIX);
    client.set_connection_timeout(seconds);
    client.set_read_timeout(seconds);
    const httplib::Headers headers{{"Host", "localhost"}};
    auto result = method == "POST" ? client.Post(target.c_str(), headers, body, "application/json")
                                   : client.Get(target.c_str(), headers);
    if (!result)
        return fail("nobody answers on {} ({})", path, httplib::to_string(result.error()));
    return HttpResponse{result->status, result->get_header_value("Content-Type"), result->body};
}

} // namespace thruway
