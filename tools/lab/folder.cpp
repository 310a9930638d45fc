// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/folder.h"

#include "agent/base/fd.h"
#include "agent/base/file.h"

#include <cstdio>
#include <cstdlib>
#include <fcntl.h>

namespace thruway::lab {

Result<> Folder::write_new(const Path &path, std::string_view text) const
{
    return put(path, text, RENAME_NOREPLACE);
}

Result<> Folder::put(const Path &path, std::string_view text, unsigned rename_flags) const
{
    // Beside the followed folders, so that nobody who watches them sees it.
    std::string temporary = root_ / "new-XXXXXX";
    const Fd file(::mkostemp(temporary.data(), O_CLOEXEC));
    if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
        ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), rename_flags) != 0) {
        auto failure = fail_errno("cannot write {}", path.native());
        ::unlink(temporary.c_str());
        return failure;
    }
    return {};
}

Result<> make_folder(const std::filesystem::path &path)
{
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error)
        return fail_code(error.value(), "cannot make folder {}", path.native());
    return {};
}

std::filesystem::path program_folder()
{
    std::error_code ignored; // only without /proc, where nothing of the lab works
    return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
}

std::string last_line(const std::filesystem::path &path)
{
    const std::string text = read_file(path).value_or("");
    const auto end = text.find_last_not_of('\n');
    if (end == std::string::npos)
        return "(it wrote nothing)";
    const auto before = text.rfind('\n', end);
    const auto begin = before == std::string::npos ? 0 : before + 1;
    return text.substr(begin, end + 1 - begin);
}

} // namespace thruway::lab
