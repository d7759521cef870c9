<?php
// A page that counts its visits in a session of php-redis, with the handler's locks.  Run by php -S; settings are given with -d.
set_error_handler(function ($level, $text) {
    http_response_code(500);
    echo $text, "\n";
    return true;
});
if (!session_start()) exit;
$visits = $_SESSION["visits"] = ($_SESSION["visits"] ?? 0) + 1;
if (session_write_close()) echo $visits;
