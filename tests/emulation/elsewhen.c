/* Preloaded into a process: another time (OFFSET seconds from now), and folders read backwards. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int status = (int)syscall(SYS_clock_gettime, clock, now);

    if (status == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += OFFSET;
    return status;
}

time_t time(time_t *kept)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (kept)
        *kept = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict kept, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    kept->tv_sec = now.tv_sec;
    kept->tv_usec = now.tv_nsec / 1000;
    return 0;
}

/* What is left of a folder that is being read: its entries, the next of which is the last. */
static struct listing {
    DIR *folder;
    struct dirent64 *entries;
    size_t count;
    struct listing *next;
} *listings;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct listing *listing_of(DIR *folder)
{
    struct dirent64 *(*read_one)(DIR *) = (struct dirent64 *(*)(DIR *))dlsym(RTLD_NEXT, "readdir64");
    struct listing *found = listings;
    struct dirent64 *entry;

    while (found && found->folder != folder)
        found = found->next;
    if (found)
        return found;
    found = calloc(1, sizeof *found);
    if (!found)
        abort();
    found->folder = folder;
    while ((entry = read_one(folder))) {
        found->entries = realloc(found->entries, (found->count + 1) * sizeof *entry);
        if (!found->entries)
            abort();
        memcpy(&found->entries[found->count++], entry, entry->d_reclen);
    }
    found->next = listings;
    listings = found;
    return found;
}

struct dirent64 *readdir64(DIR *folder)
{
    struct listing *listing;
    struct dirent64 *entry;

    pthread_mutex_lock(&lock);
    listing = listing_of(folder);
    entry = listing->count ? &listing->entries[--listing->count] : NULL;
    pthread_mutex_unlock(&lock);
    return entry;
}

struct dirent *readdir(DIR *folder)
{
    return (struct dirent *)readdir64(folder);
}

int closedir(DIR *folder)
{
    int (*close_it)(DIR *) = (int (*)(DIR *))dlsym(RTLD_NEXT, "closedir");
    struct listing **link = &listings;
    struct listing *found;

    pthread_mutex_lock(&lock);
    while (*link && (*link)->folder != folder)
        link = &(*link)->next;
    found = *link;
    if (found) {
        *link = found->next;
        free(found->entries);
        free(found);
    }
    pthread_mutex_unlock(&lock);
    return close_it(folder);
}
