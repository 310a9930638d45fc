// SPDX-License-Identifier: Apache-2.0
#include "tests/kube/connection.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <fmt/format.h>
#include <openssl/pem.h>
#include <poll.h>
#include <sys/socket.h>

namespace thruway::testing {
namespace {

struct EndBio {
    void operator()(BIO *bio) const { BIO_free_all(bio); }
};
struct EndX509 {
    void operator()(X509 *certificate) const { X509_free(certificate); }
};
struct EndKey {
    void operator()(EVP_PKEY *key) const { EVP_PKEY_free(key); }
};

std::unique_ptr<BIO, EndBio> bio_of(const std::string &text)
{
    return std::unique_ptr<BIO, EndBio>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::unique_ptr<X509, EndX509> x509_of(const Certificate &certificate)
{
    return std::unique_ptr<X509, EndX509>(PEM_read_bio_X509(bio_of(certificate.text).get(), nullptr, nullptr, nullptr));
}

std::string lower(std::string text)
{
    std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

void split_target(const std::string &target, FakeRequest &request)
{
    const size_t mark = std::min(target.find('?'), target.size());
    request.path = target.substr(0, mark);
    for (size_t at = mark + 1; at < target.size();) {
        const size_t end = std::min(target.find('&', at), target.size());
        const std::string item = target.substr(at, end - at);
        const size_t equals = std::min(item.find('='), item.size());
        request.query[item.substr(0, equals)] = equals < item.size() ? item.substr(equals + 1) : "";
        at = end + 1;
    }
}

FakeRequest parse_head(const std::string &head)
{
    FakeRequest request;
    size_t at = head.find("\r\n");
    const size_t space = head.find(' ');
    request.method = head.substr(0, space);
    split_target(head.substr(space + 1, head.find(' ', space + 1) - space - 1), request);
    while (at + 2 < head.size()) {
        const size_t begin = at + 2;
        at = std::min(head.find("\r\n", begin), head.size());
        const std::string line = head.substr(begin, at - begin);
        if (const size_t colon = line.find(": "); colon != std::string::npos)
            request.headers[lower(line.substr(0, colon))] = line.substr(colon + 2);
    }
    return request;
}

} // namespace

TlsServer::TlsServer(const Certificate &own, const std::optional<Certificate> &client)
    : context_(SSL_CTX_new(TLS_server_method()))
{
    const std::unique_ptr<EVP_PKEY, EndKey> key(
        PEM_read_bio_PrivateKey(bio_of(own.key).get(), nullptr, nullptr, nullptr));
    SSL_CTX_use_certificate(context_.get(), x509_of(own).get());
    SSL_CTX_use_PrivateKey(context_.get(), key.get());
    if (client) {
        X509_STORE_add_cert(SSL_CTX_get_cert_store(context_.get()), x509_of(*client).get());
        SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
        SSL_CTX_set_session_cache_mode(context_.get(), SSL_SESS_CACHE_OFF);
    }
}

bool Connection::start_tls(const TlsServer &tls)
{
    tls_.reset(SSL_new(tls.context()));
    SSL_set_fd(tls_.get(), socket_.get());
    return SSL_accept(tls_.get()) == 1;
}

long Connection::receive(char *bytes, size_t size)
{
    return tls_ ? SSL_read(tls_.get(), bytes, static_cast<int>(size)) : ::recv(socket_.get(), bytes, size, 0);
}

std::optional<FakeRequest> Connection::read_request()
{
    std::optional<FakeRequest> request;
    size_t wanted = 0;
    for (;;) {
        if (!request) {
            if (const size_t end = read_.find("\r\n\r\n"); end != std::string::npos) {
                request = parse_head(read_.substr(0, end));
                read_.erase(0, end + 4);
                const std::string &length = request->headers["content-length"];
                std::from_chars(length.data(), length.data() + length.size(), wanted);
            }
        }
        if (request && read_.size() >= wanted) {
            request->body = read_.substr(0, wanted);
            read_.erase(0, wanted);
            return request;
        }
        std::array<char, 4096> buffer{};
        const long got = receive(buffer.data(), buffer.size());
        if (got <= 0)
            return std::nullopt;
        read_.append(buffer.data(), static_cast<size_t>(got));
    }
}

void Connection::send(std::string_view bytes)
{
    while (!bytes.empty() && !broken_) {
        const long sent = tls_ ? SSL_write(tls_.get(), bytes.data(), static_cast<int>(bytes.size()))
                               : ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        broken_ = sent <= 0;
        if (!broken_)
            bytes.remove_prefix(static_cast<size_t>(sent));
    }
}

void Connection::answer(int status, const std::string &body, const std::string &type,
                        const std::vector<std::string> &headers)
{
    std::string head =
        fmt::format("HTTP/1.1 {} X\r\nContent-Type: {}\r\nContent-Length: {}\r\n", status, type, body.size());
    for (const std::string &header : headers)
        head += header + "\r\n";
    send(head + "\r\n" + body);
}

void Connection::begin_stream()
{
    send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
}

void Connection::send_chunk(std::string_view bytes)
{
    send(fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes));
}

void Connection::end_stream()
{
    send("0\r\n\r\n");
}

bool Connection::is_open()
{
    pollfd poll_for{.fd = socket_.get(), .events = POLLRDHUP, .revents = 0};
    return !broken_ && (::poll(&poll_for, 1, 0) == 0 || (poll_for.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0);
}

void Connection::hang_up()
{
    ::shutdown(socket_.get(), SHUT_RDWR);
}

void Connection::reset()
{
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    hang_up();
}

} // namespace thruway::testing
