// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/keeper.h"

#include <array>
#include <csignal>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace thruway::lab {
namespace {

constexpr std::chrono::seconds death_timeout(10);

/// A pair of sockets and not a pipe: writing to a dead keeper must not raise a signal.
struct Channel {
    Fd ours;
    Fd keepers;
};

Result<Channel> make_channel()
{
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
        return fail_errno("cannot make a socket pair");
    return Channel{.ours = Fd(ends[0]), .keepers = Fd(ends[1])};
}

std::string read_all(int fd)
{
    std::string text;
    std::array<char, 512> buffer{};
    for (ssize_t got = 0; (got = ::read(fd, buffer.data(), buffer.size())) > 0;)
        text.append(buffer.data(), static_cast<size_t>(got));
    return text;
}

/// The child's part: system calls only. Nothing that this process had open goes along, for the keeper would hold it
/// open long after (the other end of a pipe waits for that).
[[noreturn]] void become_keeper(int in, int out, int err, char *const *argv)
{
    ::dup2(in, 0);
    ::dup2(out, 1);
    ::dup2(err, 2);
    ::close_range(3, ~0U, 0);
    ::setsid();
    ::execv(argv[0], argv);
    ::_exit(127);
}

Result<> mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
    if (::mount(source, target, type, flags, data) != 0)
        return fail_errno("cannot mount {} on {}", source, target);
    return {};
}

Result<> set_up_namespaces(const Folder &folder)
{
    if (auto made = mount_at("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr); !made)
        return made;
    if (auto made = mount_at("proc", "/proc", "proc", 0, nullptr); !made)
        return made;
    if (auto made = make_folder(netns_folder); !made)
        return made;
    if (auto made = mount_at("netns", netns_folder, "tmpfs", 0, "mode=0755"); !made)
        return made;

    const std::string own = fmt::format("{}/{}", netns_folder, fabric_netns);
    const Fd point(::open(own.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0444));
    if (auto made = mount_at("/proc/self/ns/net", own.c_str(), nullptr, MS_BIND, nullptr); !made)
        return made;

    if (!claim_presence(folder.keeper_lock().c_str()))
        return fail_errno("cannot lock {}", folder.keeper_lock().native());
    return {};
}

} // namespace

Result<Keeper> Keeper::start(const std::filesystem::path &program, const Folder &folder)
{
    auto owner = make_channel();
    auto answer = make_channel();
    const Fd log(::open(folder.keeper_log().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (!owner || !answer || !log)
        return fail_errno("cannot start the keeper");

    std::array<std::string, 3> words{program, "keeper", folder.root().filename()};
    const std::array<char *, 4> argv{words[0].data(), words[1].data(), words[2].data(), nullptr};
    constexpr unsigned long flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | SIGCHLD;
    const long pid = ::syscall(SYS_clone, flags, nullptr, nullptr, nullptr, nullptr);
    if (pid < 0)
        return fail_errno("cannot make namespaces");
    if (pid == 0)
        become_keeper(owner->keepers.get(), answer->keepers.get(), log.get(), argv.data());

    answer->keepers.reset();
    if (const std::string text = read_all(answer->ours.get()); text != "ready\n") {
        ::waitpid(static_cast<pid_t>(pid), nullptr, 0);
        return fail("the keeper did not start: {}", text.empty() ? "cannot run " + program.native() : text);
    }
    auto keeper = find(folder);
    if (keeper && !keeper->lives())
        return fail("the keeper died at once");
    if (keeper)
        keeper->owner_ = std::move(owner->ours);
    return keeper;
}

Result<Keeper> Keeper::find(const Folder &folder)
{
    auto presence = find_presence(folder.keeper_lock());
    if (!presence)
        return std::unexpected(presence.error());
    Keeper keeper(std::move(*presence));
    if (!keeper.lives())
        return keeper;
    keeper.root_ = Fd(::open(fmt::format("/proc/{}/root", keeper.presence_.pid).c_str(), O_PATH | O_CLOEXEC));
    // The process that was found may be gone and its pid another's: what was opened counts only if it still lives.
    if (wait_gone(keeper.presence_, {}))
        return Keeper({});
    if (!keeper.root_)
        return fail_errno("cannot enter the lab of process {}", keeper.presence_.pid);
    return keeper;
}

Result<Fd> Keeper::netns(const std::string &name) const
{
    const std::string path = fmt::format("{}/{}", netns_folder + 1, name); // relative to the root
    Fd file(::openat(root_.get(), path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file)
        return fail_errno("cannot open network namespace {}", name);
    return file;
}

void Keeper::release()
{
    // A keeper that is dead already needs no word; whoever uses it next finds out.
    ::send(owner_.get(), "", 1, MSG_NOSIGNAL);
    owner_.reset();
}

Result<> Keeper::kill()
{
    owner_.reset();
    auto ended = end_process(presence_, SIGKILL, death_timeout);
    // Our own child stays as a zombie otherwise; for any other this does nothing.
    siginfo_t info{};
    ::waitid(P_PIDFD, static_cast<id_t>(presence_.pidfd.get()), &info, WEXITED | WNOHANG);
    return ended;
}

int run_keeper(const Folder &folder)
{
    std::signal(SIGCHLD, SIG_IGN); // the kernel reaps the orphans that come to us
    ::umask(022);
    if (::chdir("/") != 0)
        return 1;
    if (auto set_up = set_up_namespaces(folder); !set_up) {
        fmt::print("{}", set_up.error().text());
        return 1;
    }
    fmt::print("ready\n");
    std::fflush(stdout);
    ::close(STDOUT_FILENO); // the starter waits for the end

    char released = 0;
    if (::read(STDIN_FILENO, &released, 1) == 1) {
        while (true)
            ::pause();
    }
    return 0;
}

} // namespace thruway::lab
