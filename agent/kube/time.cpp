// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/time.h"

#include <charconv>
#include <chrono>
#include <ctime>
#include <fmt/chrono.h>

namespace thruway {
namespace {

/// Takes texts apart from left to right. Once something is not as asked, nothing that follows is.
class Scanner {
public:
    explicit Scanner(std::string_view text) : rest_(text) {}

    [[nodiscard]] bool failed() const { return failed_; }
    [[nodiscard]] bool done() const { return !failed_ && rest_.empty(); }

    /// A number of exactly `digits` digits.
    int number(size_t digits)
    {
        int value = 0;
        const std::string_view text = rest_.substr(0, digits);
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (text.size() != digits || error != std::errc{} || end != text.data() + digits || text.front() == '-') {
            failed_ = true;
            return 0;
        }
        rest_.remove_prefix(digits);
        return value;
    }

    /// One character out of `allowed`, or NUL.
    char any_of(std::string_view allowed)
    {
        if (failed_ || rest_.empty() || !allowed.contains(rest_.front()))
            return '\0';
        const char found = rest_.front();
        rest_.remove_prefix(1);
        return found;
    }

    void expect(std::string_view allowed) { failed_ |= any_of(allowed) == '\0'; }

    /// The first three of the digits behind a point, as thousandths.
    int thousandths()
    {
        int value = 0;
        int unit = 100;
        for (size_t digits = 0;; digits++) {
            const char digit = any_of("0123456789");
            if (digit == '\0') {
                failed_ |= digits == 0;
                return value;
            }
            value += (digit - '0') * unit;
            unit /= 10;
        }
    }

private:
    std::string_view rest_;
    bool failed_ = false;
};

/// "Z", "+02:00", "-05:30".
std::chrono::minutes read_offset(Scanner &scanner)
{
    const char sign = scanner.any_of("+-");
    if (sign == '\0') {
        scanner.expect("Zz");
        return {};
    }
    const int hours = scanner.number(2);
    scanner.expect(":");
    const std::chrono::minutes offset(hours * 60 + scanner.number(2));
    return sign == '-' ? -offset : offset;
}

} // namespace

std::optional<int64_t> parse_time(std::string_view text)
{
    using namespace std::chrono;
    Scanner scanner(text);

    const int y = scanner.number(4);
    scanner.expect("-");
    const int m = scanner.number(2);
    scanner.expect("-");
    const year_month_day date(year(y), month(static_cast<unsigned>(m)), day(static_cast<unsigned>(scanner.number(2))));
    scanner.expect("Tt ");
    const int hour = scanner.number(2);
    scanner.expect(":");
    const int minute = scanner.number(2);
    scanner.expect(":");
    const int second = scanner.number(2);
    const int fraction = scanner.any_of(".") != '\0' ? scanner.thousandths() : 0;
    const minutes offset = read_offset(scanner);

    // A leap second has the number 60.
    if (!scanner.done() || !date.ok() || hour > 23 || minute > 59 || second > 60)
        return std::nullopt;
    const auto time =
        sys_days(date) + hours(hour) + minutes(minute) + seconds(second) + milliseconds(fraction) - offset;
    return time.time_since_epoch() / milliseconds(1);
}

std::string time_text(int64_t microseconds)
{
    const std::time_t seconds = microseconds / 1'000'000;
    return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}Z", fmt::gmtime(seconds), microseconds % 1'000'000);
}

} // namespace thruway
