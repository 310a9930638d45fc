// SPDX-License-Identifier: Apache-2.0
#include "agent/base/file.h"

#include "agent/base/fd.h"

#include <cstdio>
#include <fcntl.h>
#include <unistd.h>

namespace thruway {

Result<std::string> read_file(const std::string &path)
{
    constexpr size_t piece = 64 * 1024;
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file)
        return fail_errno("cannot read {}", path);
    std::string text;
    while (true) {
        const size_t had = text.size();
        text.resize(had + piece);
        const ssize_t length = ::read(file.get(), text.data() + had, piece);
        if (length < 0)
            return fail_errno("cannot read {}", path);
        text.resize(had + static_cast<size_t>(length));
        if (length == 0)
            return text;
    }
}

Result<> write_file(const std::string &path, std::string_view text)
{
    const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        return fail_errno("cannot write \"{}\" to {}", text, path);
    return {};
}

Result<> replace_file(const std::string &path, std::string_view text)
{
    const std::string next = path + ".new";
    const Fd file(::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
        std::rename(next.c_str(), path.c_str()) == 0)
        return {};
    auto failure = fail_errno("cannot write {}", path);
    ::unlink(next.c_str());
    return failure;
}

} // namespace thruway
