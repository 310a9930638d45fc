// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/exec_plugin.h"

#include "agent/base/base64.h"
#include "agent/base/file.h"
#include "agent/kube/time.h"

#include <csignal>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace thruway {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

/// A plugin may ask somebody else over the network.
constexpr auto longest_run = 60s;

/// How a plugin is started: its output goes into a file in memory, its complaints go where ours go, it has no input,
/// and no signal is blocked, as in the agent.
class SpawnSetup {
public:
    explicit SpawnSetup(int output)
    {
        posix_spawn_file_actions_init(&files_);
        posix_spawn_file_actions_addopen(&files_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_adddup2(&files_, output, STDOUT_FILENO);
        posix_spawnattr_init(&attributes_);
        posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK);
        sigset_t none;
        sigemptyset(&none);
        posix_spawnattr_setsigmask(&attributes_, &none);
    }
    SpawnSetup(const SpawnSetup &) = delete;
    SpawnSetup &operator=(const SpawnSetup &) = delete;
    ~SpawnSetup()
    {
        posix_spawn_file_actions_destroy(&files_);
        posix_spawnattr_destroy(&attributes_);
    }

    /// 0, or an errno.
    int spawn(pid_t &pid, std::vector<std::string> arguments, std::vector<std::string> environment)
    {
        const auto pointers = [](std::vector<std::string> &texts) {
            std::vector<char *> all;
            for (std::string &text : texts)
                all.push_back(text.data());
            all.push_back(nullptr);
            return all;
        };
        auto argv = pointers(arguments);
        auto envp = pointers(environment);
        return posix_spawnp(&pid, argv[0], &files_, &attributes_, argv.data(), envp.data());
    }

private:
    posix_spawn_file_actions_t files_{};
    posix_spawnattr_t attributes_{};
};

std::vector<std::string> plugin_environment(const Access &access)
{
    std::vector<std::string> all;
    for (const auto &[name, value] : access.exec->environment)
        all.push_back(fmt::format("{}={}", name, value));
    all.push_back("KUBERNETES_EXEC_INFO=" + exec_info(access));
    for (char **entry = environ; *entry != nullptr; entry++) // of two settings the first one counts
        all.emplace_back(*entry);
    return all;
}

} // namespace

std::string exec_info(const Access &access)
{
    json spec{{"interactive", false}};
    if (access.exec->wants_cluster) {
        json cluster{{"server", access.servers.front()}};
        if (!access.tls_server_name.empty())
            cluster["tls-server-name"] = access.tls_server_name;
        if (access.insecure)
            cluster["insecure-skip-tls-verify"] = true;
        if (!access.proxy.empty())
            cluster["proxy-url"] = access.proxy;
        if (!access.authority.empty())
            cluster["certificate-authority-data"] = encode_base64(access.authority);
        spec["cluster"] = std::move(cluster);
    }
    return json{{"apiVersion", access.exec->api_version}, {"kind", "ExecCredential"}, {"spec", std::move(spec)}}.dump();
}

Result<ExecCredential> parse_exec_credential(const std::string &text)
{
    const json root = json::parse(text, nullptr, false);
    if (!root.is_object() || root.value("/kind"_json_pointer, json()) != "ExecCredential")
        return fail("printed no ExecCredential");
    const json status = root.value("/status"_json_pointer, json());
    const auto field = [&](const char *key) {
        return status.is_object() && status.contains(key) && status[key].is_string() ? status[key].get<std::string>()
                                                                                     : std::string();
    };
    ExecCredential credential{
        .token = field("token"), .certificate = field("clientCertificateData"), .key = field("clientKeyData")};
    if (credential.token.empty() && credential.certificate.empty())
        return fail("its ExecCredential has neither status.token nor status.clientCertificateData");
    if (credential.certificate.empty() != credential.key.empty())
        return fail("its ExecCredential has only one of status.clientCertificateData and status.clientKeyData");
    if (const std::string time = field("expirationTimestamp"); !time.empty()) {
        const auto expires = parse_time(time);
        if (!expires)
            return fail("its ExecCredential's status.expirationTimestamp is no time: \"{}\"", time);
        credential.expires = *expires;
    }
    return credential;
}

Result<std::unique_ptr<ExecRun>> ExecRun::start(Loop &loop, const Access &access, Done done)
{
    std::unique_ptr<ExecRun> run(new ExecRun(loop, access.exec->command, std::move(done))); // NOLINT
    if (auto spawned = run->spawn(access); !spawned)
        return fail_within(fmt::format("exec plugin {}", access.exec->command), spawned.error());
    return run;
}

ExecRun::~ExecRun()
{
    loop_.cancel(deadline_);
    if (!process_)
        return;
    loop_.forget(process_.get());
    if (pid_ != 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
}

Result<> ExecRun::spawn(const Access &access)
{
    output_ = Fd(memfd_create("exec-credential", MFD_CLOEXEC));
    if (!output_)
        return fail_errno("memfd_create");
    std::vector<std::string> arguments{command_};
    arguments.insert(arguments.end(), access.exec->arguments.begin(), access.exec->arguments.end());
    if (const int error = SpawnSetup(output_.get()).spawn(pid_, std::move(arguments), plugin_environment(access))) {
        const std::string &hint = access.exec->install_hint;
        return fail_code(error, "cannot be run{}{}", hint.empty() ? "" : ": ", hint);
    }
    process_ = Fd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0))); // glibc 2.36 declares it for C only
    if (!process_)
        return fail_errno("pidfd_open");
    deadline_ = loop_.after(longest_run, [this] { kill(pid_, SIGKILL); });
    return loop_.watch(process_.get(), [this] { on_exit(); });
}

void ExecRun::on_exit()
{
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) != pid_)
        return;
    pid_ = 0;
    loop_.cancel(deadline_);
    auto credential = result(status);
    const Done done = std::move(done_);
    done(std::move(credential)); // destroys this, perhaps
}

Result<ExecCredential> ExecRun::result(int status) const
{
    const std::string context = fmt::format("exec plugin {}", command_);
    if (WIFSIGNALED(status))
        return fail("{}: ended by signal {}", context, WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        return fail("{}: ended with status {}", context, WEXITSTATUS(status));
    auto text = read_file(fmt::format("/proc/self/fd/{}", output_.get()));
    if (!text)
        return std::unexpected(text.error());
    auto credential = parse_exec_credential(*text);
    if (!credential)
        return fail_within(context, credential.error());
    return credential;
}

} // namespace thruway
