// SPDX-License-Identifier: Apache-2.0
// One line a record on stderr: time level program key=value... Values with spaces are quoted by the
// caller's format, quotes in them become single ones; payloads are never logged. Safe from any
// thread.
#ifndef SONIC_COMMON_LOG_H
#define SONIC_COMMON_LOG_H

// Not LOG_DEBUG etc.: syslog.h, which czmq.h brings along, has macros of those names.
enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

// Names the program in each line and sets the least level shown. Call once, before threads.
void log_open(const char *program, enum log_level level);
// "debug", "info", "warn", "error"; -1 when it is none of them.
int log_level_parse(const char *text);
// `event` is a short constant word ("worker_joined"); fmt gives the key=value pairs.
void log_line(enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(event, ...) log_line(LOG_LEVEL_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...) log_line(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_warn(event, ...) log_line(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define log_error(event, ...) log_line(LOG_LEVEL_ERROR, event, __VA_ARGS__)

#endif
