/* pool.h: the programs of this folder: what main calls.  Each returns the exit status. */
#ifndef COVEY_POOL_POOL_H
#define COVEY_POOL_POOL_H

/* covey pool-of FILE POOL [--without SERVER]... [KEY...]: which server has a key. */
int pool_of_main(int argc, char **argv);

#endif
