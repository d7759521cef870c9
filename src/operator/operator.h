/* operator.h: what operates clusters from outside, through the same commands that any client may send: the public face
 * of src/operator/.  Knows no data node from inside. */
#ifndef COVEY_OPERATOR_OPERATOR_H
#define COVEY_OPERATOR_OPERATOR_H

/* `covey up`: starts nodes as processes of their own, forms the cluster, shows what happens, stops them again. */
int up_main(int argc, char **argv);
/* `covey down --dir DIR`: stops what `covey up --detach` started there. */
int down_main(int argc, char **argv);

#endif
