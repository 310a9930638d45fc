// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/kubeconfig.h"

#include "agent/base/base64.h"
#include "agent/base/yaml.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace thruway {
namespace {

using nlohmann::json;

/// A part of the file with the way that led to it. The first thing that is wrong anywhere is kept; the rest reads as
/// empty, so it is asked for once, at the end.
class Section {
public:
    Section(const json &value, std::string path, std::optional<std::string> &wrong)
        : value_(value), path_(std::move(path)), wrong_(wrong)
    {
    }

    [[nodiscard]] bool has(const char *key) const
    {
        return value_.is_object() && value_.contains(key) && !value_[key].is_null();
    }

    [[nodiscard]] std::string text(const char *key) const
    {
        if (!has(key))
            return {};
        if (!value_[key].is_string())
            return complain(key, "must be text"), "";
        return value_[key].get<std::string>();
    }

    [[nodiscard]] bool flag(const char *key) const
    {
        if (!has(key))
            return false;
        if (!value_[key].is_boolean())
            return complain(key, "must be true or false"), false;
        return value_[key].get<bool>();
    }

    [[nodiscard]] Section at(const char *key) const
    {
        static const json nothing = json::object();
        return {has(key) ? value_[key] : nothing, path_of(key), wrong_};
    }

    /// Calls handle(Section item) for each item of a list.
    template<typename Handle>
    void each(const char *key, Handle handle) const
    {
        if (!has(key))
            return;
        if (!value_[key].is_array())
            return complain(key, "must be a list");
        for (size_t i = 0; i < value_[key].size(); i++)
            handle(Section(value_[key][i], fmt::format("{}[{}]", path_of(key), i), wrong_));
    }

    /// An item of `list` by its name, of which it has the field `field`.
    [[nodiscard]] Section named(const char *list, const char *field, const std::string &name) const
    {
        std::optional<Section> found;
        each(list, [&](const Section &item) {
            if (!found && item.text("name") == name)
                found.emplace(item.at(field));
        });
        if (found)
            return *found;
        complain(list, fmt::format("has no \"{}\"", name));
        return at(list);
    }

    [[nodiscard]] std::string value() const
    {
        if (value_.is_string())
            return value_.get<std::string>();
        if (!wrong_)
            wrong_ = path_ + ": must be text";
        return {};
    }

    void complain(const char *key, std::string_view what) const
    {
        if (!wrong_)
            wrong_ = fmt::format("{}: {}", path_of(key), what);
    }

private:
    [[nodiscard]] std::string path_of(const char *key) const { return path_.empty() ? key : path_ + "." + key; }

    const json &value_;
    std::string path_;
    std::optional<std::string> &wrong_;
};

std::string beside(const std::string &path, const std::string &file)
{
    return file.empty() ? "" : (std::filesystem::path(path).parent_path() / file).string();
}

Material read_material(const Section &section, const char *data_key, const char *file_key, const std::string &path)
{
    Material material{.file = beside(path, section.text(file_key))};
    if (const std::string data = section.text(data_key); !data.empty()) {
        auto decoded = decode_base64(data);
        if (!decoded)
            section.complain(data_key, "is not base64");
        material.text = std::move(decoded).value_or("");
    }
    return material;
}

ExecPlugin read_exec(const Section &section, const std::string &path)
{
    ExecPlugin plugin{.api_version = section.text("apiVersion"),
                      .command = section.text("command"),
                      .install_hint = section.text("installHint"),
                      .wants_cluster = section.flag("provideClusterInfo")};
    if (plugin.api_version != "client.authentication.k8s.io/v1" &&
        plugin.api_version != "client.authentication.k8s.io/v1beta1")
        section.complain("apiVersion",
                         fmt::format("must be client.authentication.k8s.io/v1, is \"{}\"", plugin.api_version));
    if (plugin.command.empty())
        section.complain("command", "missing");
    if (plugin.command.contains('/')) // else it is looked for in PATH
        plugin.command = beside(path, plugin.command);
    if (section.text("interactiveMode") == "Always")
        section.complain("interactiveMode", "is Always, but an agent has no terminal");
    section.each("args", [&](const Section &item) { plugin.arguments.push_back(item.value()); });
    section.each("env",
                 [&](const Section &item) { plugin.environment.emplace_back(item.text("name"), item.text("value")); });
    return plugin;
}

void read_cluster(const Section &cluster, const std::string &path, Kubeconfig &config)
{
    config.server = cluster.text("server");
    config.tls_server_name = cluster.text("tls-server-name");
    config.proxy_url = cluster.text("proxy-url");
    config.insecure = cluster.flag("insecure-skip-tls-verify");
    config.authority = read_material(cluster, "certificate-authority-data", "certificate-authority", path);
    if (config.server.empty())
        cluster.complain("server", "missing");
    else if (!config.server.starts_with("https://") && !config.server.starts_with("http://"))
        cluster.complain("server", fmt::format("must begin with https://, is \"{}\"", config.server));
    if (config.insecure && !config.authority.empty())
        cluster.complain("insecure-skip-tls-verify", "cannot be together with a certificate-authority");
}

void read_user(const Section &user, const std::string &path, Kubeconfig &config)
{
    for (const char *key : {"username", "auth-provider", "as"})
        if (user.has(key))
            user.complain(key, "is not supported; use a certificate, a token or exec");
    config.certificate = read_material(user, "client-certificate-data", "client-certificate", path);
    config.key = read_material(user, "client-key-data", "client-key", path);
    config.token = {.text = user.text("token"), .file = beside(path, user.text("tokenFile"))};
    if (config.certificate.empty() != config.key.empty())
        user.complain(config.key.empty() ? "client-key" : "client-certificate", "missing");
    if (user.has("exec"))
        config.exec = read_exec(user.at("exec"), path);
}

} // namespace

Result<Kubeconfig> parse_kubeconfig(const std::string &text, const std::string &path)
{
    json root = json::object();
    auto read = yaml_to_json(text, [&](size_t, const std::string &document) -> Result<> {
        root = json::parse(document);
        return {};
    });
    if (!read)
        return fail_within(path, read.error());

    std::optional<std::string> wrong;
    const Section file(root, "", wrong);
    const std::string current = file.text("current-context");
    Kubeconfig config;
    if (current.empty()) {
        file.complain("current-context", "missing");
    } else {
        const Section context = file.named("contexts", "context", current);
        read_cluster(file.named("clusters", "cluster", context.text("cluster")), path, config);
        if (context.has("user"))
            read_user(file.named("users", "user", context.text("user")), path, config);
    }
    if (wrong)
        return fail("{}: {}", path, *wrong);
    return config;
}

} // namespace thruway
