// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/client.h"

#include <algorithm>
#include <array>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <set>
#include <stdexcept>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <vector>

namespace thruway {
namespace {

using std::chrono::milliseconds;

/// A peer that does not acknowledge for that long is dead; TCP by itself gives up after a quarter of an hour.
constexpr int unacknowledged_ms = 15'000;
constexpr long keepalive_idle_s = 10;
constexpr long keepalive_interval_s = 5;

/// As much of the body of a failure as is needed to say what it was.
constexpr size_t longest_failure = 64 * 1024;

constexpr std::string_view json_type = "application/json";
constexpr std::string_view protobuf_type = "application/vnd.kubernetes.protobuf";

struct EndEasy {
    void operator()(CURL *easy) const { curl_easy_cleanup(easy); }
};
struct EndList {
    void operator()(curl_slist *list) const { curl_slist_free_all(list); }
};

/// The library is set up once for the process, before anything else uses it.
void set_up_library()
{
    static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
    if (code != CURLE_OK)
        throw std::runtime_error(curl_easy_strerror(code));
}

int set_socket_options(void * /*context*/, curl_socket_t socket, curlsocktype /*purpose*/)
{
    setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms, sizeof(unacknowledged_ms));
    return CURL_SOCKOPT_OK;
}

/// curl copies it.
void set_blob(CURL *easy, CURLoption option, const std::string &text)
{
    curl_blob blob{.data = const_cast<char *>(text.data()), .len = text.size(), .flags = CURL_BLOB_COPY}; // NOLINT
    if (!text.empty())
        curl_easy_setopt(easy, option, &blob);
}

/// "https://name:6443" with the name under which the server can prove itself, and the way to where it really is, as
/// CURLOPT_CONNECT_TO wants it. Without such a name nothing changes.
struct Target {
    std::string url;
    std::string connect_to;
};

Target target_of(const std::string &server, const std::string &tls_name)
{
    if (tls_name.empty())
        return {server, ""};
    const size_t host = server.find("://") + 3;
    const size_t end = std::min(server.find('/', host), server.size());
    const size_t bracket = server.find(']', host);
    size_t colon = server.find(':', bracket < end ? bracket : host);
    std::string port = "443";
    if (colon < end)
        port = server.substr(colon + 1, end - colon - 1);
    else
        colon = end;
    return {fmt::format("{}{}:{}{}", server.substr(0, host), tls_name, port, server.substr(end)),
            fmt::format("::{}:{}", server.substr(host, colon - host), port)};
}

/// What people can use of curl's error. All that share a connection lose it together, but each in words of its own: of
/// an end that TLS did not expect, of a system call that failed without an error, with the number of its stream. In the
/// same words they are one trouble, which is told once.
std::string cause_of(CURLcode code, std::string_view detail)
{
    constexpr std::string_view broken = "the connection broke";
    if (code == CURLE_SSL_CONNECT_ERROR && (detail.contains("SSL_ERROR_SYSCALL") || detail.contains("unexpected eof")))
        return std::string(broken);
    // An alert says what the other end does not like: mostly a client certificate.
    if ((code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR) && !detail.contains(" alert "))
        return std::string(broken);
    // "HTTP/2 stream 9 was not closed cleanly: INTERNAL_ERROR (err 2)"
    if (const size_t colon = detail.rfind(": "); code == CURLE_HTTP2_STREAM && colon != std::string_view::npos)
        return fmt::format("the answer broke off{}", detail.substr(colon));
    return std::string(detail);
}

} // namespace

/// One request and what has come of it.
struct ApiClient::Transfer {
    Id id = 0;
    ApiRequest request;
    Handlers handlers;
    std::string server; ///< empty until it is started
    std::unique_ptr<CURL, EndEasy> easy{curl_easy_init()};
    std::unique_ptr<curl_slist, EndList> headers;
    std::unique_ptr<curl_slist, EndList> connect_to;
    std::array<char, CURL_ERROR_SIZE> error_text{};
    std::string wrong; ///< why we ended it
    HttpEnd answer;
    Loop *loop = nullptr;
    Loop::Timer quiet_timer = 0;
    Loop::Clock::time_point heard = Loop::Clock::now();

    ~Transfer() { loop->cancel(quiet_timer); }

    void set_up(const Access &access, milliseconds connect_limit);
    void set_credentials(const Access &access);
    void add_header(const std::string &line) { headers.reset(curl_slist_append(headers.release(), line.c_str())); }

    /// Which of its multi's connections it uses; -1: none yet.
    [[nodiscard]] curl_off_t connection() const
    {
        curl_off_t connection = -1;
        curl_easy_getinfo(easy.get(), CURLINFO_CONN_ID, &connection);
        return connection;
    }

    /// Whether others can use it at the same time. Known when an answer has begun.
    [[nodiscard]] bool shares_connection() const
    {
        long version = 0;
        curl_easy_getinfo(easy.get(), CURLINFO_HTTP_VERSION, &version);
        return version == CURL_HTTP_VERSION_2_0;
    }

    /// How much longer it may say nothing.
    [[nodiscard]] Loop::Clock::duration patience() const
    {
        return heard + (answer.status == 0 ? request.head_limit : request.quiet_limit) - Loop::Clock::now();
    }

    static size_t on_body(char *bytes, size_t size, size_t count, void *self);
    static size_t on_header(char *bytes, size_t size, size_t count, void *self);
};

size_t ApiClient::Transfer::on_body(char *bytes, size_t size, size_t count, void *self)
{
    auto *transfer = static_cast<Transfer *>(self);
    const std::string_view piece(bytes, size * count);
    transfer->heard = Loop::Clock::now();
    if (transfer->answer.status != 200) {
        transfer->answer.body.append(piece.substr(0, longest_failure - transfer->answer.body.size()));
        return piece.size();
    }
    auto taken = transfer->handlers.body(piece);
    if (!taken)
        transfer->wrong = taken.error().text();
    return taken ? piece.size() : CURL_WRITEFUNC_ERROR;
}

/// Gets one line of the head at a time; the last one is empty.
size_t ApiClient::Transfer::on_header(char *bytes, size_t size, size_t count, void *self)
{
    auto *transfer = static_cast<Transfer *>(self);
    long status = 0;
    curl_easy_getinfo(transfer->easy.get(), CURLINFO_RESPONSE_CODE, &status);
    transfer->heard = Loop::Clock::now();
    transfer->answer.status = static_cast<int>(status);
    if (status != 200 || std::string_view(bytes, size * count) != "\r\n")
        return size * count;
    const char *type = nullptr;
    curl_easy_getinfo(transfer->easy.get(), CURLINFO_CONTENT_TYPE, &type);
    const std::string_view said = type != nullptr ? type : "";
    if (!said.starts_with(json_type) && !(transfer->request.protobuf && said.starts_with(protobuf_type))) {
        transfer->wrong = fmt::format("{}: is no API server: it answers with {}", transfer->server,
                                      type != nullptr ? type : "something of no type");
        return CURL_WRITEFUNC_ERROR;
    }
    if (transfer->handlers.begin)
        transfer->handlers.begin();
    return size * count;
}

void ApiClient::Transfer::set_up(const Access &access, milliseconds connect_limit)
{
    CURL *curl = easy.get();
    const Target target = target_of(server, access.tls_server_name);
    curl_easy_setopt(curl, CURLOPT_URL, (target.url + request.path).c_str());
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    if (!target.connect_to.empty()) {
        connect_to.reset(curl_slist_append(nullptr, target.connect_to.c_str()));
        curl_easy_setopt(curl, CURLOPT_CONNECT_TO, connect_to.get());
    }
    if (!access.proxy.empty())
        curl_easy_setopt(curl, CURLOPT_PROXY, access.proxy.c_str());
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect_limit.count()));
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPIDLE, keepalive_idle_s);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPINTVL, keepalive_interval_s);
    curl_easy_setopt(curl, CURLOPT_SOCKOPTFUNCTION, set_socket_options);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error_text.data());
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, this);
    curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L); // a proxy's answer is not the server's
    curl_easy_setopt(curl, CURLOPT_PRIVATE, this);
    set_credentials(access);
    add_header(request.protobuf ? fmt::format("Accept: {}, {}", protobuf_type, json_type)
                                : fmt::format("Accept: {}", json_type));
    add_header("User-Agent: thruway-agent/" THRUWAY_VERSION);
    if (!request.body.empty()) {
        add_header(fmt::format("Content-Type: {}", json_type));
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, static_cast<long>(request.body.size()));
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request.body.data());
    }
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
}

void ApiClient::Transfer::set_credentials(const Access &access)
{
    CURL *curl = easy.get();
    set_blob(curl, CURLOPT_SSLCERT_BLOB, access.certificate);
    set_blob(curl, CURLOPT_SSLKEY_BLOB, access.key);
    set_blob(curl, CURLOPT_CAINFO_BLOB, access.authority);
    if (!access.authority.empty())
        curl_easy_setopt(curl, CURLOPT_CAPATH, nullptr); // this authority alone
    if (access.insecure) {
        curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (!access.token.empty())
        add_header("Authorization: Bearer " + access.token);
}

ApiClient::ApiClient(Loop &loop, milliseconds connect_limit)
    : loop_(loop), connect_limit_(connect_limit), sockets_(epoll_create1(EPOLL_CLOEXEC))
{
    set_up_library();
    // As with the loop itself: only a process out of descriptors or memory gets here.
    if (!sockets_ || !loop_.watch(sockets_.get(), [this] { on_ready(); }))
        throw std::runtime_error("cannot create an epoll for connections");
    multi_ = make_multi();
}

ApiClient::~ApiClient()
{
    loop_.cancel(timer_);
    for (const auto &[id, transfer] : transfers_)
        curl_multi_remove_handle(multi_.get(), transfer->easy.get());
    transfers_.clear();
    multi_.reset();
    loop_.forget(sockets_.get());
}

void ApiClient::use(Access access)
{
    if (access.servers != access_.servers)
        server_ = 0;
    access_ = std::move(access);
}

ApiClient::Multi ApiClient::make_multi()
{
    Multi multi(curl_multi_init());
    curl_multi_setopt(multi.get(), CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    curl_multi_setopt(multi.get(), CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(multi.get(), CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi.get(), CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(multi.get(), CURLMOPT_TIMERDATA, this);
    return multi;
}

void ApiClient::ask(ApiRequest request, Handlers handlers)
{
    const Id id = next_id_++;
    auto transfer = std::make_unique<Transfer>();
    transfer->id = id;
    transfer->request = std::move(request);
    transfer->handlers = std::move(handlers);
    transfer->loop = &loop_;
    transfers_.emplace(id, std::move(transfer));
    start_waiting();
}

/// Whether a request would find a connection, or is the one to make it. The others wait until it is known whether that
/// one can be shared. (CURLOPT_PIPEWAIT would leave them waiting for good where it cannot.) That there is a connection
/// is not enough: after a GOAWAY its streams go on, but no new ones.
bool ApiClient::may_start() const
{
    std::set<curl_off_t> answering; // connections
    for (const auto &[id, transfer] : transfers_) {
        if (transfer->server != server() || transfer->answer.status == 0)
            continue;
        if (!transfer->shares_connection())
            return true;
        answering.insert(transfer->connection());
    }
    return std::ranges::none_of(transfers_, [&](const auto &item) {
        const Transfer &transfer = *item.second;
        return transfer.server == server() && transfer.answer.status == 0 && !answering.contains(transfer.connection());
    });
}

void ApiClient::start_waiting()
{
    for (auto &[id, transfer] : transfers_)
        if (transfer->server.empty() && may_start())
            start(*transfer);
}

void ApiClient::start(Transfer &transfer)
{
    transfer.server = server();
    transfer.heard = Loop::Clock::now();
    transfer.set_up(access_, connect_limit_);
    transfer.quiet_timer = loop_.after(transfer.patience(), [this, id = transfer.id] { check_quiet(id); });
    curl_multi_add_handle(multi_.get(), transfer.easy.get());
}

/// curl says which of its sockets to look at, and for what.
int ApiClient::on_socket(CURL * /*easy*/, curl_socket_t socket, int what, void *self, void * /*known*/)
{
    auto *client = static_cast<ApiClient *>(self);
    const int sockets = client->sockets_.get();
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(sockets, EPOLL_CTL_DEL, socket, nullptr);
        return 0;
    }
    epoll_event event{.events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U),
                      .data = {.fd = socket}};
    if (epoll_ctl(sockets, EPOLL_CTL_MOD, socket, &event) != 0)
        epoll_ctl(sockets, EPOLL_CTL_ADD, socket, &event);
    return 0;
}

int ApiClient::on_timer(CURLM * /*multi*/, long milliseconds, void *self)
{
    auto *client = static_cast<ApiClient *>(self);
    client->loop_.cancel(client->timer_);
    client->timer_ = 0;
    if (milliseconds >= 0)
        client->timer_ = client->loop_.after(std::chrono::milliseconds(milliseconds),
                                             [client] { client->drive(CURL_SOCKET_TIMEOUT, 0); });
    return 0;
}

void ApiClient::on_ready()
{
    std::array<epoll_event, 16> events{};
    const int count = epoll_wait(sockets_.get(), events.data(), events.size(), 0);
    for (int i = 0; i < count; i++) {
        const auto &event = events.at(i);
        drive(event.data.fd, (event.events & EPOLLIN ? CURL_CSELECT_IN : 0) |
                                 (event.events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                                 (event.events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0));
    }
}

void ApiClient::drive(curl_socket_t socket, int events)
{
    int running = 0;
    curl_multi_socket_action(multi_.get(), socket, events, &running);
    end_done();
    start_waiting();
}

/// What an end calls may hang up, and so make another multi: it is looked at anew each time.
void ApiClient::end_done()
{
    int left = 0;
    while (const CURLMsg *message = curl_multi_info_read(multi_.get(), &left)) {
        if (message->msg != CURLMSG_DONE)
            continue;
        const CURLcode code = message->data.result;
        char *pointer = nullptr;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &pointer);
        auto node = transfers_.extract(reinterpret_cast<Transfer *>(pointer)->id);
        curl_multi_remove_handle(multi_.get(), node.mapped()->easy.get());
        end(std::move(node.mapped()), code);
    }
}

void ApiClient::end(std::unique_ptr<Transfer> transfer, CURLcode code)
{
    curl_off_t retry_after = 0;
    curl_easy_getinfo(transfer->easy.get(), CURLINFO_RETRY_AFTER, &retry_after);
    transfer->answer.retry_after = retry_after;
    if (!transfer->wrong.empty()) {
        transfer->answer.error = transfer->wrong;
        turn_from(transfer->server);
    } else if (code != CURLE_OK) {
        const char *detail =
            transfer->error_text.front() != '\0' ? transfer->error_text.data() : curl_easy_strerror(code);
        transfer->answer.error = fmt::format("{}: {}", transfer->server, cause_of(code, detail));
        if (transfer->answer.status == 0)
            turn_from(transfer->server);
    }
    transfer->handlers.end(transfer->answer);
    transfer.reset();
    start_waiting();
}

void ApiClient::check_quiet(Id id)
{
    const auto found = transfers_.find(id);
    if (found == transfers_.end())
        return;
    if (const auto left = found->second->patience(); left.count() > 0) {
        found->second->quiet_timer = loop_.after(left, [this, id] { check_quiet(id); });
        return;
    }
    auto node = transfers_.extract(found);
    curl_multi_remove_handle(multi_.get(), node.mapped()->easy.get());
    node.mapped()->wrong = fmt::format("{}: says nothing", node.mapped()->server);
    end(std::move(node.mapped()), CURLE_OK);
}

/// Connections live as long as the multi does; one to a dead server must not be used again. If some answers come from
/// another server it stays, and is not asked for that one.
void ApiClient::end_those(const std::function<bool(const Transfer &)> &which,
                          const std::function<void(Transfer &)> &mark)
{
    std::vector<std::unique_ptr<Transfer>> ended;
    for (auto at = transfers_.begin(); at != transfers_.end();) {
        if (!which(*at->second)) {
            ++at;
            continue;
        }
        curl_multi_remove_handle(multi_.get(), at->second->easy.get());
        ended.push_back(std::move(at->second));
        at = transfers_.erase(at);
    }
    if (std::ranges::all_of(transfers_, [](const auto &item) { return item.second->server.empty(); }))
        multi_ = make_multi();
    for (auto &transfer : ended) {
        mark(*transfer);
        end(std::move(transfer), CURLE_OK);
    }
}

void ApiClient::hang_up(const std::string &server, const std::string &why)
{
    end_those([&](const Transfer &transfer) { return transfer.server == server; },
              [&](Transfer &transfer) { transfer.wrong = why; });
}

void ApiClient::start_over()
{
    end_those([](const Transfer &transfer) { return !transfer.server.empty(); },
              [](Transfer &transfer) { transfer.answer.renewed = true; });
}

void ApiClient::turn_from(const std::string &other)
{
    if (server() == other)
        server_ = (server_ + 1) % access_.servers.size();
}

} // namespace thruway
