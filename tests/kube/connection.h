// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/fd.h"
#include "tests/kube/certificate.h"

#include <map>
#include <memory>
#include <openssl/ssl.h>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace thruway::testing {

struct FakeRequest {
    std::string method;
    std::string path;                           ///< without its query
    std::map<std::string, std::string> query;   ///< as it came, still encoded
    std::map<std::string, std::string> headers; ///< names in lower case
    std::string body;
};

struct EndTls {
    void operator()(SSL *tls) const { SSL_free(tls); }
    void operator()(SSL_CTX *context) const { SSL_CTX_free(context); }
};

/// What the server shows to clients, and what it wants of them.
class TlsServer {
public:
    /// With `client` a client must have that very certificate.
    TlsServer(const Certificate &own, const std::optional<Certificate> &client);

    [[nodiscard]] SSL_CTX *context() const { return context_.get(); }

private:
    std::unique_ptr<SSL_CTX, EndTls> context_;
};

/// One client of the fake server. Belongs to one thread, except hang_up() and reset().
class Connection {
public:
    explicit Connection(Fd socket) : socket_(std::move(socket)) {}

    /// False if the client does not like what it sees.
    bool start_tls(const TlsServer &tls);

    /// The next request; nothing when the client has gone.
    std::optional<FakeRequest> read_request();

    void send(std::string_view bytes);

    /// An answer that is whole. `headers` are lines without their ends.
    void answer(int status, const std::string &body, const std::string &type = "application/json",
                const std::vector<std::string> &headers = {});

    /// An answer in chunks of which nobody knows how many come.
    void begin_stream();
    void send_chunk(std::string_view bytes);
    void end_stream();

    /// False when the client has gone, or somebody has hung up.
    [[nodiscard]] bool is_open();

    /// Ends the connection, from any thread: in order, or as if the host had crashed.
    void hang_up();
    void reset();

private:
    long receive(char *bytes, size_t size);

    Fd socket_;
    std::unique_ptr<SSL, EndTls> tls_;
    std::string read_;
    bool broken_ = false;
};

} // namespace thruway::testing
