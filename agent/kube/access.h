// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/kube/kubeconfig.h"

#include <optional>
#include <string>
#include <vector>

namespace thruway {

/// Where the agent finds the API server.
struct KubeOptions {
    std::string kubeconfig;           ///< empty: that of a pod, from its environment and service account
    std::vector<std::string> servers; ///< instead of the one that the kubeconfig or the environment names
};

/// All that is needed to talk to an API server. Texts of certificates and keys are PEM.
struct Access {
    std::vector<std::string> servers; ///< "https://10.0.0.1:6443"; one is as good as another
    std::string authority;            ///< empty: the system's
    std::string certificate;
    std::string key;
    std::string token;
    std::string tls_server_name; ///< empty: that of the server's URL
    std::string proxy;
    bool insecure = false;          ///< the server need not prove who it is
    std::optional<ExecPlugin> exec; ///< has to be asked for token, or certificate and key

    friend bool operator==(const Access &, const Access &) = default;
};

/// Reads everything anew: files are replaced while the agent runs, and are too small and too seldom read to remember
/// when they changed.
Result<Access> read_access(const KubeOptions &options);

} // namespace thruway
