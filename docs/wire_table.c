// SPDX-License-Identifier: Apache-2.0
// Prints what wire.def declares: the tables of docs/protocol.md, or with --dict a libFuzzer
// dictionary. `make docs` writes the tables into the page; a test compares them.
#include <stdio.h>
#include <string.h>

#include "common/wire.h"

static void print_limit(const char *kind, unsigned long long limit)
{
    if (limit == 0)
        printf("| %s ", kind);
    else
        printf("| %s ≤ %llu ", kind, limit);
}

#define FIELD(kind, name, limit, since, doc)                                                       \
    printf("| `" #name "` ");                                                                      \
    print_limit(#kind, limit);                                                                     \
    printf("| %d | %s |\n", since, doc);

#define COUNT(kind, name, limit, since, doc) +1

static const char *senders_text(unsigned senders)
{
    switch (senders) {
    case WIRE_FROM_CLIENT:
        return "client → broker";
    case WIRE_FROM_WORKER:
        return "worker → broker";
    case WIRE_FROM_BROKER:
        return "broker → peer";
    default:
        return "client or worker → broker";
    }
}

static void print_tables(void)
{
    printf("### Messages\n\n");
#define MESSAGE(NAME, name, number, senders, doc)                                                  \
    printf("#### %d %s\n\n%s: %s.\n\n", number, #NAME, senders_text(senders), doc);                \
    printf("| field | kind | since | meaning |\n| --- | --- | --- | --- |\n");                     \
    WIRE_FIELDS_##name(FIELD);                                                                     \
    if ((0 WIRE_ITEMS_##name(COUNT)) > 0) {                                                        \
        printf("\nEach item:\n\n| field | kind | since | meaning |\n| --- | --- | --- | --- |\n"); \
        WIRE_ITEMS_##name(FIELD);                                                                  \
    }                                                                                              \
    printf("\n");
    WIRE_MESSAGES(MESSAGE)
#undef MESSAGE
    printf("### Statuses\n\n| number | name | the client library tries again | meaning |\n"
           "| --- | --- | --- | --- |\n");
#define STATUS(NAME, number, retry, text)                                                          \
    printf("| %d | %s | %s | %s |\n", number, #NAME, (retry) ? "yes" : "no", text);
    SONIC_STATUSES(STATUS)
#undef STATUS
    printf("\n### Element types\n\n| number | name | bytes |\n| --- | --- | --- |\n");
#define DTYPE(name, number, bytes, numpy, triton)                                                  \
    printf("| %d | %s | %d |\n", number, #name, bytes);
#include "common/dtype.def"
#undef DTYPE
}

static void print_dictionary(void)
{
#define MESSAGE(NAME, name, number, senders, doc)                                                  \
    printf("%s=\"\\x93\\x%02x\\x%02x\"\n", #name, number, 0x90 + (0 WIRE_FIELDS_##name(COUNT)));
    WIRE_MESSAGES(MESSAGE)
#undef MESSAGE
    printf("array16=\"\\xdc\\x00\\x01\"\narray32=\"\\xdd\\x00\\x00\\x00\\x01\"\n"
           "u64=\"\\xcf\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\"\n");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--dict") == 0)
        print_dictionary();
    else
        print_tables();
    return 0;
}
