/* check.h: the tools that look at files: `covey check-rdb` and `covey check-aof`, also through links named
 * redis-check-rdb and redis-check-aof.  Outputs and exit statuses are those of Debian's redis-tools 7.0.15; where a
 * value is damaged inside, the words are our own. */
#ifndef COVEY_CHECK_CHECK_H
#define COVEY_CHECK_CHECK_H

int check_rdb_main(int argc, char **argv); /* FILE */
int check_aof_main(int argc, char **argv); /* [--fix | --truncate-to-timestamp TIME] FILE */

#endif
