#include "tp_base.h"

const char *tp_status_name(int status) {
    switch (status) {
    case TP_OK: return "OK";
    case TP_E_ARGUMENT: return "ARGUMENT";
    case TP_E_ROOM: return "ROOM";
    case TP_E_FORMAT: return "FORMAT";
    case TP_E_FULL: return "FULL";
    case TP_E_STATE: return "STATE";
    default: return status > 0 ? "OK" : "UNKNOWN";
    }
}
