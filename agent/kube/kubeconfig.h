// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace thruway {

/// A program that hands out credentials (client.authentication.k8s.io).
struct ExecPlugin {
    std::string api_version;
    std::string command;
    std::vector<std::string> arguments;
    std::vector<std::pair<std::string, std::string>> environment;
    std::string install_hint;
    bool wants_cluster = false; ///< provideClusterInfo

    friend bool operator==(const ExecPlugin &, const ExecPlugin &) = default;
};

/// Something that stands in the file itself or in another one; the former counts.
struct Material {
    std::string text;
    std::string file; ///< absolute, or as seen from the working directory

    [[nodiscard]] bool empty() const { return text.empty() && file.empty(); }

    friend bool operator==(const Material &, const Material &) = default;
};

/// What a kubeconfig says of its current context.
struct Kubeconfig {
    std::string server;
    std::string tls_server_name;
    std::string proxy_url;
    bool insecure = false;
    Material authority;
    Material certificate;
    Material key;
    Material token;
    std::optional<ExecPlugin> exec;

    friend bool operator==(const Kubeconfig &, const Kubeconfig &) = default;
};

/// `path` is where the text comes from: what it names without a leading slash lies beside it. The error names the
/// field.
Result<Kubeconfig> parse_kubeconfig(const std::string &text, const std::string &path);

} // namespace thruway
