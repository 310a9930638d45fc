// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/access.h"

#include "agent/base/file.h"

#include <cstdlib>

namespace thruway {
namespace {

/// Where the kubelet puts it (pkg/kubelet; client-go rest/config.go, InClusterConfig).
constexpr const char *service_account = "/var/run/secrets/kubernetes.io/serviceaccount";

std::string environment(const char *name)
{
    const char *value = std::getenv(name); // NOLINT(concurrency-mt-unsafe)
    return value != nullptr ? value : "";
}

Result<std::string> read_material(const Material &material)
{
    if (!material.text.empty() || material.file.empty())
        return material.text;
    return read_file(material.file);
}

Result<Kubeconfig> in_cluster(bool knows_servers)
{
    Kubeconfig config{.authority = {.file = fmt::format("{}/ca.crt", service_account)},
                      .token = {.file = fmt::format("{}/token", service_account)}};
    const std::string host = environment("KUBERNETES_SERVICE_HOST");
    const std::string port = environment("KUBERNETES_SERVICE_PORT");
    if (!knows_servers && (host.empty() || port.empty()))
        return fail("kubeconfig: none is given, and this is no pod: KUBERNETES_SERVICE_HOST and _PORT are not set");
    config.server =
        host.contains(':') ? fmt::format("https://[{}]:{}", host, port) : fmt::format("https://{}:{}", host, port);
    return config;
}

Result<Kubeconfig> find_config(const KubeOptions &options)
{
    if (options.kubeconfig.empty())
        return in_cluster(!options.servers.empty());
    auto text = read_file(options.kubeconfig);
    if (!text)
        return std::unexpected(text.error());
    return parse_kubeconfig(*text, options.kubeconfig);
}

void trim(std::string &text)
{
    while (text.ends_with('\n') || text.ends_with('\r') || text.ends_with(' '))
        text.pop_back();
}

} // namespace

Result<Access> read_access(const KubeOptions &options)
{
    auto config = find_config(options);
    if (!config)
        return std::unexpected(config.error());
    Access access{.servers = options.servers,
                  .tls_server_name = config->tls_server_name,
                  .proxy = config->proxy_url,
                  .insecure = config->insecure,
                  .exec = config->exec};
    if (access.servers.empty())
        access.servers.push_back(config->server);
    for (std::string &server : access.servers)
        while (server.ends_with('/'))
            server.pop_back();
    const std::pair<const Material *, std::string *> wanted[] = {{&config->authority, &access.authority},
                                                                 {&config->certificate, &access.certificate},
                                                                 {&config->key, &access.key},
                                                                 {&config->token, &access.token}};
    for (const auto &[material, to] : wanted) {
        auto text = read_material(*material);
        if (!text)
            return std::unexpected(text.error());
        *to = std::move(*text);
    }
    trim(access.token);
    return access;
}

} // namespace thruway
