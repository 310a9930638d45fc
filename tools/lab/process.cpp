// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/process.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace thruway::lab {
namespace {

/// Everything that a child needs to become its command, made before the fork: the caller may have threads, so that the
/// child can make system calls only.
struct Preparation {
    int keeper = -1;
    Fd netns;
    Fd cgroup; ///< empty: none to enter
    std::string directory;
    std::vector<std::string> words; ///< arguments, then environment
    std::vector<char *> argv;
    std::vector<char *> envp;
    std::array<int, 3> standard{};
    std::string presence; ///< lock to hold; empty: none
    Fd report_read;       ///< says why the command could not be run; just ends if it could
    Fd report_write;
};

Result<Fd> open_cgroup(const std::filesystem::path &cgroup)
{
    if (cgroup.empty())
        return Fd();
    Fd folder(::open(cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder)
        return fail_errno("cannot open control group {}", cgroup.native());
    return folder;
}

void prepare_words(Preparation &made, const Command &command)
{
    made.words = command.argv;
    made.words.insert(made.words.end(), command.environment.begin(), command.environment.end());
    for (size_t i = 0; i < made.words.size(); i++)
        (i < command.argv.size() ? made.argv : made.envp).push_back(made.words[i].data());
    for (char **variable = environ; *variable; variable++)
        made.envp.push_back(*variable);
    made.argv.push_back(nullptr);
    made.envp.push_back(nullptr);
}

Result<Preparation> prepare(const Keeper &keeper, const Place &place, const Command &command)
{
    auto netns = keeper.netns(place.netns);
    if (!netns)
        return std::unexpected(netns.error());
    auto cgroup = open_cgroup(place.cgroup);
    if (!cgroup)
        return std::unexpected(cgroup.error());
    std::array<int, 2> report{};
    if (::pipe2(report.data(), O_CLOEXEC) != 0)
        return fail_errno("cannot make a pipe");

    Preparation made;
    made.keeper = keeper.presence().pidfd.get();
    made.netns = std::move(*netns);
    made.cgroup = std::move(*cgroup);
    std::error_code ignored; // without a current directory, the command starts in the root
    made.directory = std::filesystem::current_path(ignored);
    prepare_words(made, command);
    made.standard = {command.in, command.out, command.err};
    made.report_read = Fd(report[0]);
    made.report_write = Fd(report[1]);
    return made;
}

bool enter(const Preparation &prepared)
{
    if (::setns(prepared.keeper, CLONE_NEWNS) != 0 || ::setns(prepared.netns.get(), CLONE_NEWNET) != 0)
        return false;
    // The directory may not exist in there; entering has put us into the root.
    [[maybe_unused]] const int changed = ::chdir(prepared.directory.c_str());
    return true;
}

void reset_signals()
{
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::signal(SIGPIPE, SIG_DFL);
}

[[noreturn]] void give_up(const Preparation &prepared)
{
    const int code = errno;
    [[maybe_unused]] const auto written = ::write(prepared.report_write.get(), &code, sizeof(code));
    ::_exit(127);
}

/// Cuts what ties a resident to who started it: session, and descriptors that it would keep open for as long as it
/// lives.
bool settle(const char *presence)
{
    ::setsid();
    ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    if (claim_presence(presence))
        return true;
    errno = EALREADY;
    return false;
}

[[noreturn]] void become(const Preparation &prepared)
{
    reset_signals();
    for (int i = 0; i < 3; i++)
        ::dup2(prepared.standard.at(i), i);
    if (!enter(prepared))
        give_up(prepared);
    if (!prepared.presence.empty() && !settle(prepared.presence.c_str()))
        give_up(prepared);
    environ = const_cast<char **>(prepared.envp.data());
    ::execvp(prepared.argv[0], prepared.argv.data());
    give_up(prepared);
}

/// As fork(), but a system call and nothing else: the C library's own would take locks that another thread of the
/// caller may have held when this child of it was made.
long raw_fork(clone_args arguments)
{
    arguments.exit_signal = SIGCHLD;
    return ::syscall(SYS_clone3, &arguments, sizeof(arguments));
}

/// A child of ours in the keeper's pid namespace; in the child itself the pidfd is empty. It is born into its control
/// group: moving a process there later takes the kernel ten milliseconds and more.
Result<Fd> fork_inside(const Keeper &keeper, int cgroup = -1)
{
    const Fd home(::open("/proc/thread-self/ns/pid", O_RDONLY | O_CLOEXEC));
    if (!home || ::setns(keeper.presence().pidfd.get(), CLONE_NEWPID) != 0)
        return fail_errno("cannot enter the lab's pid namespace");

    int pidfd = -1;
    clone_args arguments{};
    arguments.flags = CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0);
    arguments.pidfd = reinterpret_cast<uintptr_t>(&pidfd);
    arguments.cgroup = static_cast<uint64_t>(cgroup);
    const long pid = raw_fork(arguments);
    if (pid == 0)
        return Fd();
    const int code = errno;
    ::setns(home.get(), CLONE_NEWPID); // where this thread's children belonged before: cannot fail
    if (pid < 0)
        return fail_code(code, "cannot fork");
    return Fd(pidfd);
}

/// How the child ended, once it has.
Exit reap(const Fd &pidfd)
{
    siginfo_t info{};
    ::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED);
    return info.si_code == CLD_EXITED ? Exit{.code = info.si_status} : Exit{.signal = info.si_status};
}

/// Waits until the child has become its command or could not.
Result<> started(Preparation &prepared, std::string_view name)
{
    prepared.report_write.reset();
    int code = 0;
    if (::read(prepared.report_read.get(), &code, sizeof(code)) != sizeof(code))
        return {};
    return fail_code(code, "cannot run {}", name);
}

Result<Fd> make_buffer(std::string_view content = {})
{
    Fd file(::memfd_create("thruway-lab", MFD_CLOEXEC));
    if (!file || ::write(file.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size()) ||
        ::lseek(file.get(), 0, SEEK_SET) != 0)
        return fail_errno("cannot make a buffer");
    return file;
}

std::string buffer_text(const Fd &file)
{
    std::string text(static_cast<size_t>(::lseek(file.get(), 0, SEEK_END)), '\0');
    const auto got = ::pread(file.get(), text.data(), text.size(), 0);
    text.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return text;
}

} // namespace

Result<Process> Process::start(const Keeper &keeper, const Place &place, const Command &command)
{
    auto prepared = prepare(keeper, place, command);
    if (!prepared)
        return std::unexpected(prepared.error());
    auto child = fork_inside(keeper, prepared->cgroup.get());
    if (!child)
        return std::unexpected(child.error());
    if (!*child)
        become(*prepared);

    Process process(std::move(*child));
    if (auto running = started(*prepared, command.argv.front()); !running)
        return std::unexpected(running.error());
    return process;
}

Process::~Process()
{
    if (pidfd_) {
        signal(SIGKILL);
        reap(pidfd_);
    }
}

void Process::signal(int number) const
{
    send_signal(pidfd_, number);
}

Result<Exit> Process::wait(std::chrono::milliseconds timeout)
{
    pollfd end{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
    while (::poll(&end, 1, static_cast<int>(timeout.count())) < 0 && errno == EINTR)
        continue;
    if (end.revents == 0)
        return fail_code(ETIMEDOUT, "a process goes on after {} ms", timeout.count());

    const Exit exit = reap(pidfd_);
    pidfd_.reset();
    return exit;
}

Result<Output> run(const Keeper &keeper, const Place &place, Command command, std::string_view input,
                   std::chrono::milliseconds timeout)
{
    // Files in memory, unlike pipes, need nobody to fill and empty them meanwhile.
    auto in = make_buffer(input);
    auto out = make_buffer();
    auto err = make_buffer();
    if (!in || !out || !err)
        return fail_errno("cannot catch the output of {}", command.argv.front());
    command.in = in->get();
    command.out = out->get();
    command.err = err->get();

    auto process = Process::start(keeper, place, command);
    if (!process)
        return std::unexpected(process.error());
    auto exit = process->wait(timeout);
    if (!exit)
        return fail_within(command.argv.front(), exit.error());
    return Output{.exit = *exit, .out = buffer_text(*out), .err = buffer_text(*err)};
}

Result<> start_resident(const Keeper &keeper, const Place &place, const Command &command,
                        const std::filesystem::path &presence)
{
    auto prepared = prepare(keeper, place, command);
    if (!prepared)
        return std::unexpected(prepared.error());
    prepared->presence = presence;
    auto child = fork_inside(keeper, prepared->cgroup.get());
    if (!child)
        return std::unexpected(child.error());
    if (!*child) {
        // One more generation: the orphan of a process in there goes to the keeper.
        const long resident = raw_fork({});
        if (resident == 0)
            become(*prepared);
        if (resident < 0)
            give_up(*prepared);
        ::_exit(0);
    }
    reap(*child);
    return started(*prepared, command.argv.front());
}

Result<> call_inside(const Keeper &keeper, const std::function<int()> &action)
{
    auto child = fork_inside(keeper);
    if (!child)
        return std::unexpected(child.error());
    if (!*child)
        ::_exit(::setns(keeper.presence().pidfd.get(), CLONE_NEWNS) == 0 ? action() : errno);

    const Exit exit = reap(*child);
    if (exit.signal)
        return fail("a child of the lab was killed by signal {}", exit.signal);
    if (exit.code)
        return fail_code(exit.code, "in the lab");
    return {};
}

} // namespace thruway::lab
