// SPDX-License-Identifier: Apache-2.0
#include "client/submit/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_EVERY_US 100000u
#define LINE_EVERY_US 5000000u

void progress_count(char *buf, unsigned size, double n)
{
    if (n >= 1e6)
        snprintf(buf, size, "%.2f M", n / 1e6);
    else if (n >= 1e4)
        snprintf(buf, size, "%.1f k", n / 1e3);
    else
        snprintf(buf, size, "%.0f", n);
}

void progress_open(struct progress *p, const char *name, uint64_t total, uint64_t done,
                   uint64_t now_us, bool quiet)
{
    *p = (struct progress){.name = name,
                           .total = total,
                           .begun_with = done,
                           .start_us = now_us,
                           .shown_us = now_us,
                           .shown_rows = done,
                           .terminal = isatty(STDERR_FILENO) == 1,
                           .quiet = quiet};
}

static void eta_text(char *buf, size_t size, const struct progress *p, uint64_t done)
{
    double s = p->rate > 0 ? (double)(p->total - done) / p->rate : -1;
    if (s < 0 || s > 360000)
        snprintf(buf, size, "--:--");
    else if (s >= 3600)
        snprintf(buf, size, "%d:%02d:%02d", (int)s / 3600, (int)s / 60 % 60, (int)s % 60);
    else
        snprintf(buf, size, "%02d:%02d", (int)s / 60, (int)s % 60);
}

static unsigned columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col >= 40 ? w.ws_col : 80;
}

static void draw(struct progress *p, uint64_t done)
{
    char bar[81], rate[24], eta[24], figures[96];
    double share = p->total ? (double)done / (double)p->total : 1;
    progress_count(rate, sizeof(rate), p->rate);
    eta_text(eta, sizeof(eta), p, done);
    int n = snprintf(figures, sizeof(figures), " %3d%%  %s items/s  ETA %s", (int)(share * 100),
                     rate, eta);
    unsigned taken = (unsigned)n + (unsigned)strlen(p->name) + 4, width = columns();
    unsigned room = width > taken + 8 ? width - taken : 8;
    room = room < sizeof(bar) ? room : (unsigned)sizeof(bar) - 1;
    for (unsigned i = 0; i < room; i++)
        bar[i] = i < (unsigned)(share * room) ? '=' : ' ';
    bar[room] = '\0';
    // \033[K: what a wider line left behind is wiped.
    fprintf(stderr, "\r%s [%s]%s\033[K", p->name, bar, figures);
    fflush(stderr);
    p->open = true;
}

static void line(const struct progress *p, uint64_t done)
{
    char rate[24], eta[24];
    progress_count(rate, sizeof(rate), p->rate);
    eta_text(eta, sizeof(eta), p, done);
    fprintf(stderr, "%s: %" PRIu64 " of %" PRIu64 " items, %s items/s, ETA %s\n", p->name, done,
            p->total, rate, eta);
}

void progress_show(struct progress *p, uint64_t done, uint64_t now_us)
{
    uint64_t since_us = now_us - p->shown_us;
    if (p->quiet || since_us < (p->terminal ? BAR_EVERY_US : LINE_EVERY_US))
        return;
    double rate = (double)(done - p->shown_rows) * 1e6 / (double)since_us;
    p->rate = p->rate > 0 ? 0.8 * p->rate + 0.2 * rate : rate;
    p->shown_us = now_us;
    p->shown_rows = done;
    if (p->terminal)
        draw(p, done);
    else
        line(p, done);
}

void progress_close(struct progress *p, uint64_t done, uint64_t now_us)
{
    if (p->quiet || !p->terminal)
        return;
    if (now_us > p->start_us)
        p->rate = (double)(done - p->begun_with) * 1e6 / (double)(now_us - p->start_us);
    draw(p, done);
    fputc('\n', stderr);
    p->open = false;
}
