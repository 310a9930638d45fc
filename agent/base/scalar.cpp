// SPDX-License-Identifier: Apache-2.0
#include "agent/base/scalar.h"

#include "agent/kube/json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <fmt/format.h>
#include <iterator>
#include <optional>

namespace thruway {
namespace {

bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

template<size_t n>
bool is_one_of(std::string_view text, const std::array<std::string_view, n> &words)
{
    return std::ranges::find(words, text) != words.end();
}

std::optional<std::string> null_of(std::string_view text)
{
    static constexpr std::array<std::string_view, 5> words{"", "~", "null", "Null", "NULL"};
    return is_one_of(text, words) ? std::optional<std::string>("null") : std::nullopt;
}

std::optional<std::string> bool_of(std::string_view text)
{
    static constexpr std::array<std::string_view, 3> yes{"true", "True", "TRUE"};
    static constexpr std::array<std::string_view, 3> no{"false", "False", "FALSE"};
    if (is_one_of(text, yes))
        return "true";
    return is_one_of(text, no) ? std::optional<std::string>("false") : std::nullopt;
}

/// 0o17 and 0x1f.
std::optional<std::string> based_integer_of(std::string_view text)
{
    const int base = text.starts_with("0o") ? 8 : 16;
    const char *begin = text.data() + 2;
    const char *end = text.data() + text.size();
    uint64_t value = 0;
    const auto [read, error] = std::from_chars(begin, end, value, base);
    if (read != end || error != std::errc{})
        return std::nullopt;
    return fmt::format("{}", value);
}

std::optional<std::string> integer_of(std::string_view text)
{
    if (text.starts_with("0o") || text.starts_with("0x"))
        return based_integer_of(text);

    const bool negative = text.starts_with('-');
    if (negative || text.starts_with('+'))
        text.remove_prefix(1);
    if (text.empty() || !std::ranges::all_of(text, is_digit))
        return std::nullopt;
    // JSON has no leading zeros.
    text.remove_prefix(std::min(text.find_first_not_of('0'), text.size() - 1));
    return fmt::format("{}{}", negative ? "-" : "", text);
}

/// Infinity for what JSON cannot hold.
std::optional<double> float_of(std::string_view text)
{
    const bool negative = text.starts_with('-');
    if (negative || text.starts_with('+'))
        text.remove_prefix(1);
    static constexpr std::array<std::string_view, 6> unreal{".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"};
    if (is_one_of(text, unreal))
        return INFINITY;
    if (text.empty() || (!is_digit(text.front()) && text.front() != '.'))
        return std::nullopt;

    double value = 0;
    const auto [read, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (read != text.data() + text.size() || error == std::errc::invalid_argument)
        return std::nullopt;
    if (error != std::errc{})
        return INFINITY;
    return negative ? -value : value;
}

Result<std::string> number_of(std::string_view text)
{
    const auto value = float_of(text);
    if (!value)
        return fail("{} is not a number", quoted(text));
    if (!std::isfinite(*value))
        return fail("JSON has no number for {}", text);
    return fmt::format("{}", *value);
}

Result<std::string> resolve(std::string_view text)
{
    for (const auto type : {null_of, bool_of, integer_of}) {
        if (auto json = type(text))
            return std::move(*json);
    }
    return float_of(text) ? number_of(text) : json_string(text);
}

} // namespace

std::string json_string(std::string_view text)
{
    std::string json = "\"";
    json.reserve(text.size() + 2);
    for (const char c : text) {
        if (c == '"' || c == '\\')
            json += {'\\', c};
        else if (static_cast<unsigned char>(c) < ' ')
            fmt::format_to(std::back_inserter(json), "\\u{:04x}", c);
        else
            json += c;
    }
    json += '"';
    return json;
}

Result<std::string> json_scalar(std::string_view tag, std::string_view text)
{
    constexpr std::string_view core = "tag:yaml.org,2002:";
    if (tag == "?" || tag.empty())
        return resolve(text);
    if (!tag.starts_with(core))
        return json_string(text);

    const std::string_view type = tag.substr(core.size());
    const auto expect = [&](std::optional<std::string> json) -> Result<std::string> {
        if (json)
            return std::move(*json);
        return fail("{} is not of type {}", quoted(text), type);
    };
    if (type == "null")
        return expect(null_of(text));
    if (type == "bool")
        return expect(bool_of(text));
    if (type == "int")
        return expect(integer_of(text));
    if (type == "float")
        return number_of(text);
    return json_string(text);
}

} // namespace thruway
