// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/kubeconfig.h"

#include "agent/base/base64.h"
#include "agent/kube/access.h"
#include "agent/kube/credentials.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

using namespace thruway;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

std::string config_text(const std::string &cluster, const std::string &user)
{
    return fmt::format("apiVersion: v1\nkind: Config\ncurrent-context: here\n"
                       "contexts:\n- {{name: there, context: {{cluster: x, user: x}}}}\n"
                       "- {{name: here, context: {{cluster: c, user: u}}}}\n"
                       "clusters:\n- name: c\n  cluster: {}\nusers:\n- name: u\n  user: {}\n",
                       cluster, user);
}

const std::string plain_cluster = "{server: \"https://10.0.0.1:6443\"}";

class Folder {
public:
    Folder()
    {
        std::string path = fs::temp_directory_path() / "thruway-test-XXXXXX";
        REQUIRE(mkdtemp(path.data()) != nullptr);
        path_ = path;
    }
    Folder(const Folder &) = delete;
    Folder &operator=(const Folder &) = delete;
    ~Folder() { fs::remove_all(path_); }

    std::string write(const std::string &name, const std::string &text) const
    {
        const std::string path = path_ / name;
        std::ofstream(path) << text;
        return path;
    }

private:
    fs::path path_;
};

/// Credentials in a loop of their own.
class Asker {
public:
    explicit Asker(KubeOptions options) : credentials_(loop_, std::move(options))
    {
        thread_ = std::jthread([this] { loop_.run(); });
    }
    Asker(const Asker &) = delete;
    Asker &operator=(const Asker &) = delete;
    ~Asker()
    {
        loop_.post([this] { loop_.stop(); });
    }

    Result<Access> get(bool refused = false)
    {
        std::promise<Result<Access>> promise;
        loop_.post(
            [&] { credentials_.get(refused, [&](Result<Access> access) { promise.set_value(std::move(access)); }); });
        return promise.get_future().get();
    }

private:
    Loop loop_;
    Credentials credentials_;
    std::jthread thread_;
};

/// A plugin that counts how often it has run, and prints what is in `answer`.
std::string plugin(const Folder &folder, const std::string &answer)
{
    const std::string script = folder.write("plugin", "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho x >> runs\n"
                                                      "echo \"$KUBERNETES_EXEC_INFO\" > info\ncat answer\n");
    fs::permissions(script, fs::perms::owner_all);
    folder.write("answer", answer);
    return folder.write("config", config_text("{server: \"https://10.0.0.1:6443\", certificate-authority-data: Q0E=}",
                                              "{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, "
                                              "interactiveMode: Never, provideClusterInfo: true}}"));
}

size_t runs(const std::string &config)
{
    std::ifstream file(fs::path(config).parent_path() / "runs");
    return static_cast<size_t>(std::count(std::istreambuf_iterator<char>(file), {}, 'x'));
}

} // namespace

TEST_CASE("base64 is read as it was written, and nothing else is")
{
    for (const std::string text : {"", "a", "ab", "abc", "abcd", "\xff\x00\x80"})
        CHECK(decode_base64(encode_base64(text)) == text);
    CHECK(encode_base64("any carnal pleas") == "YW55IGNhcm5hbCBwbGVhcw==");
    CHECK(decode_base64("YW 55\n") == "any");
    for (const char *bad : {"a", "ab", "ab=", "=abc", "a===", "a*cd", "ab=c"})
        CHECK_FALSE(decode_base64(bad));
}

TEST_CASE("a kubeconfig says what its current context needs")
{
    const auto config = parse_kubeconfig(
        config_text("{server: \"https://k:6443\", tls-server-name: kubernetes, proxy-url: \"http://p:3128\", "
                    "certificate-authority-data: Q0E=}",
                    "{client-certificate: pki/cert.pem, client-key: /etc/key.pem, tokenFile: token}"),
        "/etc/kube/config");
    REQUIRE(config);
    CHECK(*config == Kubeconfig{.server = "https://k:6443",
                                .tls_server_name = "kubernetes",
                                .proxy_url = "http://p:3128",
                                .authority = {.text = "CA", .file = ""},
                                .certificate = {.text = "", .file = "/etc/kube/pki/cert.pem"},
                                .key = {.text = "", .file = "/etc/key.pem"},
                                .token = {.text = "", .file = "/etc/kube/token"}});
    CHECK_FALSE(config->insecure);
}

TEST_CASE("a kubeconfig names the plugin that hands out credentials")
{
    const auto config = parse_kubeconfig(
        config_text(plain_cluster, "{exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, args: [a, b], "
                                   "env: [{name: X, value: y}], installHint: get it, provideClusterInfo: true}}"),
        "/k/config");
    REQUIRE(config);
    CHECK(config->exec == ExecPlugin{.api_version = "client.authentication.k8s.io/v1",
                                     .command = "aws",
                                     .arguments = {"a", "b"},
                                     .environment = {{"X", "y"}},
                                     .install_hint = "get it",
                                     .wants_cluster = true});
}

TEST_CASE("what is wrong with a kubeconfig is told by its field")
{
    const std::string v1 = "apiVersion: client.authentication.k8s.io/v1";
    const auto &[text, complaint] = GENERATE_COPY(table<std::string, std::string>({
        {"", "current-context: missing"},
        {"current-context: a", "contexts: has no \"a\""},
        {"current-context: a\ncontexts: b", "contexts: must be a list"},
        {"current-context: a\ncontexts: [{name: a, context: {cluster: c}}]", "clusters: has no \"c\""},
        {config_text("{}", "{}"), "clusters[0].cluster.server: missing"},
        {config_text("{server: x}", "{}"), "clusters[0].cluster.server: must begin with https://, is \"x\""},
        {config_text("{server: [1]}", "{}"), "clusters[0].cluster.server: must be text"},
        {config_text("{server: \"https://x\", insecure-skip-tls-verify: yes please}", "{}"),
         "clusters[0].cluster.insecure-skip-tls-verify: must be true or false"},
        {config_text("{server: \"https://x\", insecure-skip-tls-verify: true, certificate-authority: x}", "{}"),
         "clusters[0].cluster.insecure-skip-tls-verify: cannot be together with a certificate-authority"},
        {config_text("{server: \"https://x\", certificate-authority-data: \"*\"}", "{}"),
         "clusters[0].cluster.certificate-authority-data: is not base64"},
        {config_text(plain_cluster, "{username: x}"),
         "users[0].user.username: is not supported; use a certificate, a token or exec"},
        {config_text(plain_cluster, "{client-certificate: x}"), "users[0].user.client-key: missing"},
        {config_text(plain_cluster, "{exec: {command: x}}"),
         "users[0].user.exec.apiVersion: must be client.authentication.k8s.io/v1, is \"\""},
        {config_text(plain_cluster, "{exec: {" + v1 + "}}"), "users[0].user.exec.command: missing"},
        {config_text(plain_cluster, "{exec: {" + v1 + ", command: x, interactiveMode: Always}}"),
         "users[0].user.exec.interactiveMode: is Always, but an agent has no terminal"},
    }));
    INFO(text);
    const auto config = parse_kubeconfig(text, "/k");
    REQUIRE_FALSE(config);
    CHECK(config.error().text() == "/k: " + complaint);
}

TEST_CASE("what files say is read anew each time")
{
    const Folder folder;
    folder.write("token", "one\n");
    folder.write("ca", "CA1");
    const std::string path = folder.write(
        "config", config_text("{server: \"https://a:1/\", certificate-authority: ca}", "{tokenFile: token}"));
    const KubeOptions options{.kubeconfig = path, .servers = {}};
    auto access = read_access(options);
    REQUIRE(access);
    CHECK(access->servers == std::vector<std::string>{"https://a:1"});
    CHECK(access->token == "one");
    CHECK(access->authority == "CA1");
    folder.write("token", "two");
    folder.write("ca", "CA2");
    access = read_access(options);
    CHECK(access->token == "two");
    CHECK(access->authority == "CA2");
    fs::remove(fs::path(path).parent_path() / "token");
    CHECK(read_access(options).error().text().ends_with("/token: No such file or directory"));
    CHECK(read_access({.kubeconfig = path, .servers = {"https://b:1", "https://c:1"}})
              .error()
              .text()
              .ends_with("directory"));
}

TEST_CASE("servers that are named take the place of the kubeconfig's")
{
    const Folder folder;
    const std::string path = folder.write("config", config_text(plain_cluster, "{token: x}"));
    CHECK(read_access({.kubeconfig = path, .servers = {"https://b:1", "https://c:1"}})->servers ==
          std::vector<std::string>{"https://b:1", "https://c:1"});
}

TEST_CASE("outside of a pod a kubeconfig is needed")
{
    CHECK(read_access({}).error().text().starts_with("kubeconfig: none is given, and this is no pod"));
}

TEST_CASE("a plugin is asked once, and again when what it said has expired or is refused")
{
    const Folder folder;
    const std::string config = plugin(folder, R"({"kind":"ExecCredential","status":{"token":"t1"}})");
    Asker asker({.kubeconfig = config, .servers = {}});
    auto access = asker.get();
    REQUIRE(access);
    CHECK(access->token == "t1");
    CHECK(asker.get()->token == "t1");
    CHECK(runs(config) == 1);

    std::ifstream file(fs::path(config).parent_path() / "info");
    const auto info = nlohmann::json::parse(file);
    CHECK(info["kind"] == "ExecCredential");
    CHECK(info["spec"]["interactive"] == false);
    CHECK(info["spec"]["cluster"]["server"] == "https://10.0.0.1:6443");
    CHECK(info["spec"]["cluster"]["certificate-authority-data"] == "Q0E=");

    folder.write("answer", R"({"kind":"ExecCredential","status":{"token":"t2",
        "expirationTimestamp":"2020-01-01T00:00:00Z"}})");
    CHECK(asker.get(true)->token == "t2");
    CHECK(asker.get()->token == "t2");
    CHECK(runs(config) == 3);
}

TEST_CASE("a plugin that fails is told with what it did")
{
    const auto &[answer, complaint] = GENERATE(table<std::string, std::string>({
        {"hello", "printed no ExecCredential"},
        {R"({"kind":"ExecCredential"})",
         "its ExecCredential has neither status.token nor status.clientCertificateData"},
        {R"({"kind":"ExecCredential","status":{"clientCertificateData":"x"}})",
         "its ExecCredential has only one of status.clientCertificateData and status.clientKeyData"},
        {R"({"kind":"ExecCredential","status":{"token":"x","expirationTimestamp":"soon"}})",
         "its ExecCredential's status.expirationTimestamp is no time: \"soon\""},
    }));
    CHECK(parse_exec_credential(answer).error().text() == complaint);

    const Folder folder;
    const std::string config = plugin(folder, "");
    folder.write("plugin", "#!/bin/sh\nexit 3\n");
    Asker asker({.kubeconfig = config, .servers = {}});
    CHECK(asker.get().error().text().ends_with("/plugin: ended with status 3"));
    fs::remove(fs::path(config).parent_path() / "plugin");
    CHECK(asker.get().error().text().ends_with("/plugin: cannot be run: No such file or directory"));
}
