/* The least that hashing the files of a tree can cost: reads each file that the list names, the first first, and hashes it
   by libcrypto's SHA-256, in as many threads as there are processors. No lock, no check, nothing printed.
   cc -O2 hash_loop.c -lcrypto -lpthread */
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { chunk = 256 * 1024, most_files = 1000000, most_threads = 64 };

static char **files;
static long count, next_file;

static void *work(void *unused) {
  EVP_MD *algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  unsigned char *buffer = malloc(chunk), digest[EVP_MAX_MD_SIZE];
  (void)unused;
  for (long i; (i = __atomic_fetch_add(&next_file, 1, __ATOMIC_RELAXED)) < count;) {
    const int fd = open(files[i], O_RDONLY);
    if (fd < 0) exit(1);
    EVP_DigestInit_ex2(context, algorithm, NULL);
    for (ssize_t got; (got = read(fd, buffer, chunk)) > 0;) EVP_DigestUpdate(context, buffer, (size_t)got);
    EVP_DigestFinal_ex(context, digest, NULL);
    close(fd);
  }
  return NULL;
}

int main(int argc, char **argv) {
  FILE *list = argc == 2 ? fopen(argv[1], "r") : NULL;
  char *line = NULL;
  size_t size = 0;
  pthread_t threads[most_threads];
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  if (list == NULL) return 64;
  files = calloc(most_files, sizeof *files);
  for (ssize_t got; count < most_files && (got = getline(&line, &size, list)) > 0;) {
    line[got - 1] = '\0';
    files[count++] = strdup(line);
  }
  if (cpus > most_threads) cpus = most_threads;
  for (long i = 1; i < cpus; ++i) pthread_create(&threads[i], NULL, work, NULL);
  work(NULL);
  for (long i = 1; i < cpus; ++i) pthread_join(threads[i], NULL);
  return 0;
}
