// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <expected>
#include <fmt/format.h>
#include <string>
#include <system_error>
#include <utility>

namespace thruway {

/// Why something did not work: one line for a person, and the errno behind it if there was one.
class Error {
public:
    explicit Error(std::string text, int code = 0) : text_(std::move(text)), code_(code) {}

    [[nodiscard]] const std::string &text() const { return text_; }
    [[nodiscard]] int code() const { return code_; }

    /// The same error seen from further out: "context: text".
    [[nodiscard]] Error within(std::string_view context) const
    {
        return Error(fmt::format("{}: {}", context, text_), code_);
    }

private:
    std::string text_;
    int code_;
};

/// What a fallible function returns. Exceptions are for bugs, and for libraries that know nothing else.
template<typename T = void>
using Result = std::expected<T, Error>;

template<typename... Args>
std::unexpected<Error> fail(fmt::format_string<Args...> format, Args &&...args)
{
    return std::unexpected(Error(fmt::format(format, std::forward<Args>(args)...)));
}

/// Fails with a system error: "what: No such file or directory".
template<typename... Args>
std::unexpected<Error> fail_code(int code, fmt::format_string<Args...> format, Args &&...args)
{
    return std::unexpected(Error(
        fmt::format("{}: {}", fmt::format(format, std::forward<Args>(args)...), std::generic_category().message(code)),
        code));
}

/// Fails with the current errno.
template<typename... Args>
std::unexpected<Error> fail_errno(fmt::format_string<Args...> format, Args &&...args)
{
    return fail_code(errno, format, std::forward<Args>(args)...);
}

/// Passes an error on, with context.
inline std::unexpected<Error> fail_within(std::string_view context, const Error &error)
{
    return std::unexpected(error.within(context));
}

} // namespace thruway
