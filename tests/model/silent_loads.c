/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* In the place of what tsan does at a load (see CMakeLists.txt): nothing. Of a copy it is told where it goes to. */

#include <stddef.h>

void __wrap___tsan_read1(void *at);
void __wrap___tsan_read2(void *at);
void __wrap___tsan_read4(void *at);
void __wrap___tsan_read8(void *at);
void *__wrap___tsan_memcpy(void *to, const void *from, size_t size);
void __tsan_write1(void *at);

void __wrap___tsan_read1(void *at)
{
    (void)at;
}

void __wrap___tsan_read2(void *at)
{
    (void)at;
}

void __wrap___tsan_read4(void *at)
{
    (void)at;
}

void __wrap___tsan_read8(void *at)
{
    (void)at;
}

void *__wrap___tsan_memcpy(void *to, const void *from, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        __tsan_write1((char *)to + i);
        ((volatile char *)to)[i] = ((const volatile char *)from)[i];
    }
    return to;
}
