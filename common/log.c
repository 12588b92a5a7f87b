// SPDX-License-Identifier: Apache-2.0
#include "common/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const LEVELS[] = {"debug", "info", "warn", "error"};
static const char *log_program = "sonic";
static enum log_level log_least = LOG_LEVEL_INFO;

void log_open(const char *program, enum log_level level)
{
    log_program = program;
    log_least = level;
}

int log_level_parse(const char *text)
{
    for (int i = 0; i < 4; i++)
        if (strcmp(text, LEVELS[i]) == 0)
            return i;
    return -1;
}

// Whether a quote here ends a quoted value: the line or another key=... comes next.
static bool ends_value(const char *quote)
{
    const char *p = quote + 1;
    if (*p == '\0')
        return true;
    size_t key = *p == ' ' ? strspn(p + 1, "abcdefghijklmnopqrstuvwxyz_") : 0;
    return key > 0 && p[1 + key] == '=';
}

// Quotes within quoted values become single ones, so that a record can be taken apart again.
static void quote_values(char *line)
{
    for (char *p = strstr(line, "=\""); p; p = strstr(p, "=\"")) {
        for (p += 2; *p && !(*p == '"' && ends_value(p)); p++)
            if (*p == '"')
                *p = '\'';
    }
}

void log_line(enum log_level level, const char *event, const char *fmt, ...)
{
    if (level < log_least)
        return;
    struct timespec ts;
    struct tm tm;
    char line[2048];
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ldZ %s %s event=%s ",
                          ts.tv_nsec / 1000000, LEVELS[level], log_program, event);
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
    va_end(ap);
    if (m > 0)
        n += (size_t)m;
    if (n > sizeof(line) - 2)
        n = sizeof(line) - 2;
    line[n] = '\0';
    quote_values(line);
    // One record is one line and moves no terminal's cursor, whatever a peer put into a name.
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = ' ';
    line[n++] = '\n';
    // One write a line, so that lines of several threads never mix. A full or closed stderr is
    // nothing that a log can report.
    ssize_t ignored = write(STDERR_FILENO, line, n);
    (void)ignored;
}
