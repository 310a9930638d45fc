// SPDX-License-Identifier: Apache-2.0
#include "agent/file/folder.h"

#include "agent/base/address.h"
#include "agent/file/manifest.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <system_error>

namespace thruway {
namespace {

constexpr uint32_t watched_events =
    IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_EXCL_UNLINK;

/// The symbolic link through which all files of a mounted ConfigMap are switched at once (kubelet's AtomicWriter).
constexpr std::string_view config_map_link = "..data";

uint64_t stamp_of(const struct stat &status)
{
    uint64_t stamp = hash_mix(status.st_dev, status.st_ino);
    for (const auto part :
         {status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec, status.st_ctim.tv_nsec})
        stamp = hash_mix(stamp, static_cast<uint64_t>(part));
    return stamp;
}

/// The clock of file times ticks every few milliseconds: two changes within one tick leave the same stamp.
bool just_changed(const struct stat &status)
{
    using namespace std::chrono;
    constexpr milliseconds tick(50);
    const auto changed = seconds(status.st_ctim.tv_sec) + nanoseconds(status.st_ctim.tv_nsec);
    return system_clock::now().time_since_epoch() - changed < tick;
}

Result<std::string> read_to_end(int fd, size_t expected_size)
{
    std::string text(expected_size + 1, '\0');
    size_t size = 0;
    for (;;) {
        const ssize_t got = ::read(fd, text.data() + size, text.size() - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno("cannot be read");
        size += static_cast<size_t>(got);
        if (got == 0) {
            text.resize(size);
            return text;
        }
        if (size == text.size())
            text.resize(2 * size);
    }
}

Folder::Event kind_of(uint32_t mask)
{
    if ((mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) != 0)
        return Folder::Event::written;
    return (mask & IN_MODIFY) != 0 ? Folder::Event::growing : Folder::Event::altered;
}

} // namespace

Result<> Folder::start()
{
    inotify_ = Fd(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!inotify_)
        return fail_errno("cannot follow folder {} (see sysctl fs.inotify.max_user_instances)", path_);
    return {};
}

Result<bool> Folder::follow()
{
    struct stat status{};
    if (::stat(path_.c_str(), &status) != 0) {
        const int code = errno;
        unfollow();
        return fail_code(code, "cannot read folder {}", path_);
    }
    if (watch_ != no_watch && status.st_dev == device_ && status.st_ino == inode_)
        return false;

    unfollow();
    // By way of a descriptor, so that what is followed is what was looked at, even if the path is switched just now.
    const Fd folder(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder || fstat(folder.get(), &status) != 0)
        return fail_errno("cannot read folder {}", path_);
    const std::string itself = fmt::format("/proc/self/fd/{}", folder.get());
    watch_ = inotify_add_watch(inotify_.get(), itself.c_str(), watched_events);
    if (watch_ == no_watch)
        return fail_errno("cannot follow folder {} (see sysctl fs.inotify.max_user_watches)", path_);
    device_ = status.st_dev;
    inode_ = status.st_ino;
    return true;
}

void Folder::unfollow()
{
    if (watch_ != no_watch)
        inotify_rm_watch(inotify_.get(), std::exchange(watch_, no_watch));
}

Folder::Events Folder::take_events()
{
    Events events;
    alignas(inotify_event) std::array<char, 16 << 10> buffer{};
    for (;;) {
        const ssize_t size = ::read(inotify_.get(), buffer.data(), buffer.size());
        if (size <= 0)
            return events;
        for (size_t at = 0; at < static_cast<size_t>(size);) {
            inotify_event event{};
            std::memcpy(&event, buffer.data() + at, sizeof(event));
            const std::string name = event.len > 0 ? buffer.data() + at + sizeof(event) : "";
            at += sizeof(event) + event.len;
            if ((event.mask & IN_Q_OVERFLOW) != 0)
                events.lost = true;
            else if (event.wd != watch_)
                continue;
            else if ((event.mask & IN_IGNORED) != 0)
                watch_ = no_watch;
            else if (name == config_map_link)
                events.lost = true;
            else if ((event.mask & IN_ISDIR) == 0 && is_manifest(name))
                events.files.emplace_back(name, kind_of(event.mask));
        }
    }
}

Result<std::vector<std::string>> Folder::list() const
{
    std::vector<std::string> names;
    std::error_code error;
    std::filesystem::directory_iterator entry(path_, error);
    for (const std::filesystem::directory_iterator end; !error && entry != end; entry.increment(error)) {
        if (std::string name = entry->path().filename(); is_manifest(name))
            names.push_back(std::move(name));
    }
    if (error)
        return fail_code(error.value(), "cannot read folder {}", path_);
    return names;
}

Result<Folder::Text> Folder::read(const std::string &name) const
{
    // Without O_NONBLOCK, a named pipe would hold us up.
    const Fd file(::open(path_of(name).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status{};
    if (!file || fstat(file.get(), &status) != 0)
        return fail_errno("cannot be read");
    if (!S_ISREG(status.st_mode))
        return fail_code(ENOENT, "is no file");
    auto text = read_to_end(file.get(), static_cast<size_t>(status.st_size));
    if (!text)
        return std::unexpected(text.error());
    return Text{.text = std::move(*text), .stamp = just_changed(status) ? 0 : stamp_of(status)};
}

uint64_t Folder::stamp(const std::string &name) const
{
    struct stat status{};
    return ::stat(path_of(name).c_str(), &status) == 0 ? stamp_of(status) : 0;
}

} // namespace thruway
