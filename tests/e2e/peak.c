/* SPDX-License-Identifier: MIT */
/* Run a command and print what memory it had at the most, in KiB, as the last line of standard
 * error. (A child of a larger process would begin with that one's.) */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct rusage usage = {0};
    int status = 0;
    pid_t pid = argc > 1 ? fork() : -1;

    if (pid == 0) {
        execv(argv[1], argv + 1);
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid) {
        return 126;
    }
    fprintf(stderr, "\n%ld\n", usage.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
